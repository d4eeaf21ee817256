//go:build e2e

package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// unwanted is a configuration of llama.cpp that would make llama-server unreachable, or
// stop it.
const unwanted = `[*]
api-prefix = /elsewhere
ssl-key-file = /no/such/key
ssl-cert-file = /no/such/certificate
tools = all
mcp-servers-json = {"mcpServers":{"a":{"command":"true"}}}
`

// TestMachineConfigurationIsIgnored checks that llama.cpp's configuration files on
// the machine do not change how the real server runs.
func TestMachineConfigurationIsIgnored(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "llama.cpp", "config.ini")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(unwanted), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", home)
	m := load(t, realModel(t, models.SmolLM2()))
	if got := slices.Collect(m.Generate(t.Context(), "Once upon", inference.WithMaxTokens(2))); len(got) == 0 || m.Err() != nil {
		t.Errorf("%v, %v", got, m.Err())
	}

	// The user's file represents the system's, whose directory is fixed.
	d := m.Server().Child.Diagnose()
	t.Run("our arguments and variables take precedence over the file", func(t *testing.T) {
		if status, log := health(t, d.Argv, replaced(d.Env, "XDG_CONFIG_HOME", home), d.Dir); status != http.StatusOK || !strings.Contains(log, file) {
			t.Errorf("status %d: %s", status, log)
		}
	})
	t.Run("the file alone does harm", func(t *testing.T) {
		env := slices.DeleteFunc(replaced(d.Env, "XDG_CONFIG_HOME", home), func(kv string) bool { return strings.HasPrefix(kv, "LLAMA_ARG_") })
		if status, log := health(t, d.Argv, env, d.Dir); status == http.StatusOK || !strings.Contains(log, file) {
			t.Errorf("status %d, so the file proves nothing: %s", status, log)
		}
	})
}

func replaced(env []string, name, value string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	return append(env, name+"="+value)
}

// health starts the program directly. It returns the first status of /health other than
// that of loading, or 0 if the program exited before, and the program's output.
func health(t *testing.T, argv, env []string, dir string) (status int, log string) {
	t.Helper()
	private, err := os.MkdirTemp("", "c-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	socket := filepath.Join(private, "s.sock")
	argv = slices.Clone(argv)
	argv[slices.Index(argv, "--host")+1] = socket
	var out strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, &out, &out
	stdin, err := cmd.StdinPipe() // the program exits when it is closed
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	defer func() {
		_ = stdin.Close()
		cancel()
		<-ended
		log = out.String()
	}()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-ended:
			return 0, ""
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://llama/health", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			continue // not listening yet
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			return resp.StatusCode, ""
		}
	}
}
