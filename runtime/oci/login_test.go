//go:build unix

package oci

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/testing/fakeregistry"
)

func encoded(login string) string { return base64.StdEncoding.EncodeToString([]byte(login)) }

// dockerDir writes docker's config.json, and a credential helper "test" that knows the
// logins of r.test and of Docker's own registry.
func dockerDir(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	helper := `#!/bin/sh
[ "$1" = get ] || exit 2
read -r registry || [ -n "$registry" ] || exit 2
case $registry in
r.test) echo '{"ServerURL":"r.test","Username":"me","Secret":"from helper"}' ;;
https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"s"}' ;;
token.test) echo '{"Username":"<token>","Secret":"s3cret"}' ;;
text.test) echo 's3cret' ;;
broken.test) echo 's3cret'; echo 's3cret' >&2; exit 1 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`
	for name, text := range map[string]string{"config.json": config, "docker-credential-test": helper} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(EnvDockerConfig, dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestDockerLogin(t *testing.T) {
	for name, c := range map[string]struct{ config, registry, want string }{
		"file":               {`{"auths":{"r.test":{"auth":"` + encoded("me:pass:word") + `"}}}`, "r.test", "me:pass:word"},
		"address":            {`{"auths":{"https://R.test/v2/":{"auth":"` + encoded("me:p") + `"}}}`, "r.test", "me:p"},
		"user and password":  {`{"auths":{"r.test:5000":{"username":"me","password":"p"}}}`, "r.test:5000", "me:p"},
		"other port":         {`{"auths":{"r.test:5000":{"username":"me","password":"p"}}}`, "r.test", ""},
		"other host":         {`{"auths":{"r.test":{"username":"me","password":"p"}}}`, "evil.r.test", ""},
		"docker hub":         {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + encoded("me:p") + `"}}}`, "docker.io", "me:p"},
		"docker hub's API":   {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + encoded("me:p") + `"}}}`, "registry-1.docker.io", "me:p"},
		"helper":             {`{"credHelpers":{"r.test":"test"},"auths":{"r.test":{"auth":"` + encoded("not:this") + `"}}}`, "r.test", "me:from helper"},
		"helper of another":  {`{"credHelpers":{"x.test":"test"},"auths":{"r.test":{"auth":"` + encoded("this:one") + `"}}}`, "r.test", "this:one"},
		"store":              {`{"credsStore":"test","auths":{"r.test":{}}}`, "r.test", "me:from helper"},
		"store, docker hub":  {`{"credsStore":"test"}`, "index.docker.io", "hub:s"},
		"store without it":   {`{"credsStore":"test"}`, "unknown.test", ""},
		"logged out":         {`{"auths":{"r.test":{}}}`, "r.test", ""},
		"nothing of logins":  {`{"psFormat":"x"}`, "r.test", ""},
		"padded with zeroes": {`{"auths":{"r.test":{"auth":"` + encoded("me:p\x00\x00") + `"}}}`, "r.test", "me:p"},
	} {
		t.Run(name, func(t *testing.T) {
			dockerDir(t, c.config)
			got, err := DockerLogin(t.Context(), c.registry)
			want := c.want
			if want != "" {
				want = "Basic " + encoded(want)
			}
			if err != nil || got != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		})
	}
}

// Without the file there is no login. Errors say what to do, and have no secret.
func TestDockerLoginErrors(t *testing.T) {
	t.Setenv(EnvDockerConfig, t.TempDir())
	if got, err := DockerLogin(t.Context(), "r.test"); got != "" || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
	for name, c := range map[string]struct{ config, registry, says string }{
		"no JSON":         {`{"auths":{"r.test":{"password":"s3cret`, "r.test", "not JSON"},
		"no base64":       {`{"auths":{"r.test":{"auth":"s3cret!"}}}`, "r.test", "docker login again"},
		"no password":     {`{"auths":{"r.test":{"auth":"` + encoded("s3cret") + `"}}}`, "r.test", "docker login again"},
		"identity token":  {`{"auths":{"r.test":{"identitytoken":"s3cret"}}}`, "r.test", "access token"},
		"token of helper": {`{"credsStore":"test"}`, "token.test", "access token"},
		"no helper":       {`{"credsStore":"missing"}`, "r.test", "docker-credential-missing"},
		"path of helper":  {`{"credsStore":"../../bin/sh"}`, "r.test", "not the name of a credential helper"},
		"text of helper":  {`{"credsStore":"test"}`, "text.test", "does not print JSON"},
		"failed helper":   {`{"credsStore":"test"}`, "broken.test", "docker-credential-test get: exit status 1; run it by hand"},
	} {
		t.Run(name, func(t *testing.T) {
			dockerDir(t, c.config)
			got, err := DockerLogin(t.Context(), c.registry)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), encoded("s3cret")) {
				t.Errorf("%q, %v; want %q", got, err, c.says)
			}
		})
	}
}

// The login of docker is sent to the token service of its registry, and to no other
// host; a registry with basic authentication gets it itself.
func TestDockerLoginIsUsed(t *testing.T) {
	r := fakeregistry.Start(t)
	r.AddManifest("a", "b", r.AddBlob(dockerModel, []byte("x")))
	login := "Basic " + encoded("me:p")
	r.Login = login
	dockerDir(t, `{"auths":{"`+r.Host+`":{"auth":"`+encoded("me:p")+`"},"other.test":{"auth":"`+encoded("not:this")+`"}}}`)
	ref, err := modelref.Parse("oci:" + r.Host + "/a:b")
	if err != nil {
		t.Fatal(err)
	}
	registry, err := Open(t.Context(), client(), ref, DockerLogin)
	if err != nil {
		t.Fatal(err)
	}
	artifact, err := registry.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	// The blob is on another host, which answers with 403 to any login.
	if raw, _, err := registry.Client.Get(t.Context(), artifact.Layers[0].URL, 10); err != nil || string(raw) != "x" {
		t.Errorf("%q, %v", raw, err)
	}

	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen = append(seen, req.Header.Get("Authorization"))
		if req.Header.Get("Authorization") != login {
			w.Header().Add("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	dockerDir(t, `{"auths":{"`+host+`":{"auth":"`+encoded("me:p")+`"}}}`)
	if _, err := resolve(t, client(), "oci:"+host+"/a:b"); err == nil || !strings.Contains(err.Error(), "GGUF") {
		t.Errorf("basic authentication: %v", err)
	}
	if len(seen) != 2 || seen[0] != "" || seen[1] != login {
		t.Errorf("%q", seen)
	}
	t.Setenv(EnvDockerConfig, t.TempDir())
	if _, err := resolve(t, client(), "oci:"+host+"/a:b"); err == nil || !strings.Contains(err.Error(), "docker login "+host) {
		t.Errorf("without a login: %v", err)
	}
}

// A token service that redirects to another host does not take the login there.
func TestLoginStaysWithItsTokenService(t *testing.T) {
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen = append(seen, req.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	var host string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			http.Redirect(w, req, other.URL+"/token", http.StatusFound)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	host = strings.TrimPrefix(s.URL, "http://")
	dockerDir(t, `{"auths":{"`+host+`":{"auth":"`+encoded("me:p")+`"}}}`)
	if _, err := resolve(t, client(), "oci:"+host+"/a:b"); !errors.Is(err, ErrAccess) {
		t.Errorf("%v", err)
	}
	if len(seen) != 1 || seen[0] != "" {
		t.Errorf("the other host got %q", seen)
	}
}

// Docker's own registry has one API for its names, and a directory for repositories
// without an owner.
func TestAddressOfDockersRegistry(t *testing.T) {
	for name, want := range map[string]string{
		"oci:docker.io/ai/smollm2":       "https://registry-1.docker.io/v2/ai/smollm2",
		"oci:index.docker.io/m:1":        "https://registry-1.docker.io/v2/library/m",
		"oci:registry.ollama.ai/x/m:1":   "https://registry.ollama.ai/v2/x/m",
		"oci:localhost:5000/m":           "http://localhost:5000/v2/m",
		"oci:127.0.0.1:5000/library/m:1": "http://127.0.0.1:5000/v2/library/m",
	} {
		ref, err := modelref.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := repository(address(ref), ref).String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A login that is found is one of the file, for a registry with the same host and port.
func FuzzDockerConfig(f *testing.F) {
	for _, s := range []string{"", "{}", `{"auths":{"r.test":{"auth":"bWU6cA=="}}}`, `{"auths":{"https://r.test/v1/":{"username":"me"}}}`, `{"auths":{"x":{"auth":"="}},"credHelpers":{"x":"y"}}`} {
		f.Add(s, "r.test")
	}
	f.Fuzz(func(t *testing.T, s, registry string) {
		c, err := parseDockerConfig([]byte(s))
		if err != nil {
			return
		}
		c.CredsStore, c.CredHelpers = "", nil // no program is run here
		login, err := c.login(t.Context(), registry)
		if err != nil || login == "" {
			return
		}
		user, ok := strings.CutPrefix(login, "Basic ")
		if raw, err := base64.StdEncoding.DecodeString(user); !ok || err != nil || !strings.Contains(string(raw), ":") {
			t.Errorf("%q", login)
		}
		for name := range c.Auths {
			if registryKey(name) == registryKey(registry) {
				return
			}
		}
		t.Errorf("a login for %q that is in no entry", registry)
	})
}
