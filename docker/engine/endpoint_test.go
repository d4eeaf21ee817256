package engine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeContext writes a docker context as the docker command stores it.
func writeContext(t *testing.T, config, name, host string, tls bool) {
	t.Helper()
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	meta := filepath.Join(config, "contexts", "meta", id)
	err := errors.Join(os.MkdirAll(meta, 0o700),
		os.WriteFile(filepath.Join(meta, "meta.json"), fmt.Appendf(nil, `{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host), 0o600))
	if tls {
		err = errors.Join(err, os.MkdirAll(filepath.Join(config, "contexts", "tls", id, "docker"), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	config := filepath.Join(home, ".docker")
	writeContext(t, config, "far", "tcp://far:2376", true)
	writeContext(t, config, "shell", "ssh://me@far", false)
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"auths":{},"currentContext":"shell"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "config.json"), []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		env    map[string]string
		want   []string // hosts
		chosen bool
		says   string // of the error
	}{
		{"nothing", nil, []string{"unix:///var/run/docker.sock", "unix:///run/podman/podman.sock"}, false, ""},
		{
			"a user's session",
			map[string]string{"XDG_RUNTIME_DIR": "/run/user/1", "HOME": t.TempDir()},
			[]string{"unix:///var/run/docker.sock", "unix:///run/user/1/docker.sock", "unix:///run/podman/podman.sock", "unix:///run/user/1/podman/podman.sock"},
			false, "",
		},
		{"DOCKER_HOST", map[string]string{"DOCKER_HOST": "tcp://a:1", "HOME": home}, []string{"tcp://a:1"}, true, ""},
		{"the current context", map[string]string{"HOME": home}, []string{"ssh://me@far"}, true, ""},
		{"DOCKER_CONTEXT", map[string]string{"HOME": home, "DOCKER_CONTEXT": "far"}, []string{"tcp://far:2376"}, true, ""},
		{"the default context", map[string]string{"HOME": home, "DOCKER_CONTEXT": "default"}, []string{"unix:///var/run/docker.sock", "unix:///run/podman/podman.sock"}, false, ""},
		{"an unknown context", map[string]string{"HOME": home, "DOCKER_CONTEXT": "near"}, nil, true, "docker context use"},
		{"a broken configuration", map[string]string{"DOCKER_CONFIG": broken}, nil, true, "DOCKER_HOST"},
	} {
		all, chosen, err := endpoints(func(name string) string { return tc.env[name] })
		if tc.says != "" {
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s: %v, want an error with %q", tc.name, err, tc.says)
			}
			continue
		}
		var hosts []string
		for _, e := range all {
			hosts = append(hosts, e.host)
		}
		if err != nil || chosen != tc.chosen || !slices.Equal(hosts, tc.want) {
			t.Errorf("%s: %q, chosen %v, %v; want %q", tc.name, hosts, chosen, err, tc.want)
		}
		if tc.name == "DOCKER_CONTEXT" && all[0].tls == "" {
			t.Error("the context's certificates are not used")
		}
		if strings.HasPrefix(hosts[0], "ssh:") {
			if _, err := all[0].dial(t.Context()); err == nil || !strings.Contains(err.Error(), "ssh -nNT -L") || !strings.Contains(err.Error(), "DOCKER_HOST=unix:") {
				t.Errorf("ssh: %v", err)
			}
		}
	}
}

// The first socket that answers is used; the error has the reason of each.
func TestDialFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "podman.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") }))
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	none := endpoint{source: "Docker's socket", host: "unix://" + filepath.Join(dir, "docker.sock")}
	podman := endpoint{source: "Podman's socket", host: "unix://" + filepath.Join(dir, "podman.sock")}
	api, err := dialFirst(t.Context(), []endpoint{none, podman})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if api.DaemonHost() != podman.host {
		t.Errorf("reached %s", api.DaemonHost())
	}
	gone := endpoint{source: "the user's socket", host: "unix://" + filepath.Join(dir, "gone.sock")}
	if _, err := dialFirst(t.Context(), []endpoint{none, gone}); err == nil || !strings.Contains(err.Error(), none.source) || !strings.Contains(err.Error(), gone.source) {
		t.Errorf("got %v", err)
	}
}
