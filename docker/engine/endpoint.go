package engine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/client"
)

// endpoint is an address where a container engine may answer.
type endpoint struct {
	source string // how the address was found, for messages
	host   string // unix:///…, tcp://…
	tls    string // directory with ca.pem, cert.pem and key.pem, or ""
}

// dial connects to the endpoint and checks that an engine answers.
func (e endpoint) dial(ctx context.Context) (*client.Client, error) {
	opts := []client.Opt{client.WithHost(e.host), client.WithAPIVersionNegotiation()}
	switch {
	case strings.HasPrefix(e.host, "ssh://"):
		return nil, fmt.Errorf("%s: ssh is not supported: forward the socket with `ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock %s` and set DOCKER_HOST=unix:///tmp/engine.sock",
			e.source, strings.TrimPrefix(e.host, "ssh://"))
	case e.tls != "":
		opts = append(opts, client.WithTLSClientConfig(filepath.Join(e.tls, "ca.pem"), filepath.Join(e.tls, "cert.pem"), filepath.Join(e.tls, "key.pem")))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.source, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := api.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", e.source, err), api.Close())
	}
	return api, nil
}

// endpoints returns the addresses to try, in order. chosen reports that the user
// named the only one. As for the docker command, DOCKER_HOST is the first choice
// and the docker context the second. Without either these are the sockets of
// Docker and Podman, of the system and of the user.
func endpoints(getenv func(string) string) (all []endpoint, chosen bool, err error) {
	if host := getenv(client.EnvOverrideHost); host != "" {
		e := endpoint{source: "DOCKER_HOST=" + host, host: host}
		if getenv(client.EnvTLSVerify) != "" {
			e.tls = getenv(client.EnvOverrideCertPath)
		}
		return []endpoint{e}, true, nil
	}
	e, ok, err := contextEndpoint(getenv)
	if err != nil || ok {
		return []endpoint{e}, true, err
	}
	all = []endpoint{{source: "Docker's socket", host: client.DefaultDockerHost}}
	user := getenv("XDG_RUNTIME_DIR")
	if user != "" {
		all = append(all, endpoint{source: "the user's Docker socket", host: "unix://" + filepath.Join(user, "docker.sock")})
	}
	all = append(all, endpoint{source: "Podman's socket", host: "unix:///run/podman/podman.sock"})
	if user != "" {
		all = append(all, endpoint{source: "the user's Podman socket", host: "unix://" + filepath.Join(user, "podman", "podman.sock")})
	}
	return all, false, nil
}

// contextEndpoint returns the address of the docker context that DOCKER_CONTEXT or
// the docker command's configuration names; ok is false for the default context.
// How contexts are stored is described at
// https://docs.docker.com/engine/manage-resources/contexts/.
func contextEndpoint(getenv func(string) string) (e endpoint, ok bool, err error) {
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		if getenv("HOME") == "" {
			return endpoint{}, false, nil
		}
		dir = filepath.Join(getenv("HOME"), ".docker")
	}
	source, name := "DOCKER_CONTEXT", getenv("DOCKER_CONTEXT")
	if name == "" {
		var config struct{ CurrentContext string }
		source = filepath.Join(dir, "config.json")
		if err := readJSON(source, &config); err != nil {
			return endpoint{}, false, fmt.Errorf("%w; or set DOCKER_HOST", err)
		}
		name = config.CurrentContext
	}
	if name == "" || name == "default" {
		return endpoint{}, false, nil
	}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	if err := readJSON(filepath.Join(dir, "contexts", "meta", id, "meta.json"), &meta); err != nil {
		return endpoint{}, false, fmt.Errorf("docker context %q of %s: %w; or set DOCKER_HOST", name, source, err)
	}
	host := meta.Endpoints["docker"].Host
	if host == "" {
		return endpoint{}, false, fmt.Errorf("docker context %q of %s does not exist or has no engine: choose another with `docker context use`, or set DOCKER_HOST", name, source)
	}
	e = endpoint{source: fmt.Sprintf("docker context %q", name), host: host}
	if tls := filepath.Join(dir, "contexts", "tls", id, "docker"); isDirectory(tls) {
		e.tls = tls
	}
	return e, true, nil
}

func isDirectory(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}

// readJSON reads a file; one that does not exist leaves v as it is.
func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// reach connects to the first endpoint that answers. The error has the reason of
// each.
func reach(ctx context.Context) (api *client.Client, chosen bool, err error) {
	all, chosen, err := endpoints(os.Getenv)
	if err != nil {
		return nil, true, err
	}
	api, err = dialFirst(ctx, all)
	return api, chosen, err
}

func dialFirst(ctx context.Context, all []endpoint) (*client.Client, error) {
	var errs []error
	for _, e := range all {
		api, err := e.dial(ctx)
		if err == nil {
			return api, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
