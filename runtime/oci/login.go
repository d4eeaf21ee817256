package oci

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
)

// EnvDockerConfig names the directory of docker's config.json; without it, that is
// ~/.docker.
const EnvDockerConfig = "DOCKER_CONFIG"

// Login returns the Authorization header with the login for a registry, a host with
// its port; it is empty if there is none.
type Login func(ctx context.Context, registry string) (string, error)

// dockerHub is the key of the logins for Docker's own registry, by whichever of its
// host names it is reached.
const dockerHub = "https://index.docker.io/v1/"

const (
	maxDockerConfig = 1 << 20 // bytes, of the file and of a program's answer
	helperTimeout   = time.Minute
)

// dockerConfig is the part of docker's config.json that logins are in (docs.docker.com,
// "docker login", credential stores and credential helpers).
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"` // USER:PASSWORD in base64
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`  // the program for all registries
	CredHelpers map[string]string `json:"credHelpers"` // the program for one registry
}

// DockerLogin is the Login of "docker login": from config.json in $DOCKER_CONFIG or in
// ~/.docker, or from the program docker-credential-NAME that the file names. The file
// is read, and the program is run, with each call, since logins expire.
func DockerLogin(ctx context.Context, registry string) (string, error) {
	dir := os.Getenv(EnvDockerConfig)
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil //nolint:nilerr // a service without a home has no logins
		}
		dir = filepath.Join(home, ".docker")
	}
	name := filepath.Join(dir, "config.json")
	raw, err := regfile.ReadText(name, maxDockerConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the logins of docker: %w", err)
	}
	c, err := parseDockerConfig(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	login, err := c.login(ctx, registry)
	if err != nil {
		return "", fmt.Errorf("%s: the login for %s: %w", name, registry, err)
	}
	return login, nil
}

func parseDockerConfig(raw []byte) (*dockerConfig, error) {
	var c dockerConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, errors.New("it is not JSON with docker's logins") // the cause may quote a password
	}
	return &c, nil
}

// login returns the login for a registry: that of its own program, else that of the
// program for all, else the one in the file, as docker does.
func (c *dockerConfig) login(ctx context.Context, registry string) (string, error) {
	key := registryKey(registry)
	helper := c.CredsStore
	for name, program := range c.CredHelpers {
		if registryKey(name) == key {
			helper = program
		}
	}
	if helper != "" {
		return askHelper(ctx, helper, key)
	}
	for name, a := range c.Auths {
		if registryKey(name) != key {
			continue
		}
		user, password := a.Username, a.Password
		if a.Auth != "" {
			decoded, err := base64.StdEncoding.DecodeString(a.Auth)
			var ok bool
			if user, password, ok = strings.Cut(strings.TrimRight(string(decoded), "\x00"), ":"); err != nil || !ok {
				return "", errors.New("the value auth is not USER:PASSWORD in base64; run docker login again")
			}
		}
		return basic(user, password, a.IdentityToken != "")
	}
	return "", nil
}

// registryKey returns the host and port of a registry, as docker's programs are asked
// for it. Names in the file may be addresses with a path. Docker's own registry has one
// key for its host names.
func registryKey(name string) string {
	host := name
	for _, scheme := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	host, _, _ = strings.Cut(host, "/")
	switch host = strings.ToLower(host); host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return dockerHub
	}
	return host
}

// basic returns the header of a user and a password; without both there is no login.
func basic(user, password string, identity bool) (string, error) {
	switch {
	case identity:
		return "", errors.New("an identity token, which go-rocm cannot use; run docker login with a user and an access token")
	case user == "" && password == "":
		return "", nil
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), nil
}

// askHelper asks the program docker-credential-NAME for a login: the registry is its
// input, and its output is JSON (github.com/docker/docker-credential-helpers). What it
// prints appears in no error.
func askHelper(ctx context.Context, name, registry string) (string, error) {
	if !modelref.ValidFile(name) || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not the name of a credential helper", name)
	}
	program := "docker-credential-" + name
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	out := ctxio.LimitedBuffer{Limit: maxDockerConfig}
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = strings.NewReader(registry), &out, time.Second
	err := cmd.Run()
	// The texts of credentials.IsErrCredentialsNotFoundMessage and of missing user names.
	if text := string(out.Bytes()); err != nil && (strings.Contains(text, "credentials not found in native keychain") || strings.Contains(text, "no credentials server URL") || strings.Contains(text, "no credentials username")) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s get: %w; run it by hand to see why", program, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return "", fmt.Errorf("%s get does not print JSON with a login", program)
	}
	return basic(answer.Username, answer.Secret, answer.Username == "<token>")
}
