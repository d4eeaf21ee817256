//go:build linux

package supervise

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

const (
	roleName   = "SUPERVISE_TEST_ROLE"
	roleServer = "server" // be the imitation of llama-server
	roleEscape = "escape" // the same, with a descendant in a session of its own
	roleParent = "parent" // supervise a server until killed
	roleStarve = "starve" // end a server with no descriptor left
	roleHide   = "hide"   // the imitation, which refuses /slots once hideName is there
)

// TestMain lets this binary be each of the processes that the tests need.
func TestMain(m *testing.M) {
	switch os.Getenv(roleName) {
	case roleServer:
		os.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	case roleEscape:
		os.Exit(escape())
	case roleParent:
		os.Exit(parent())
	case roleStarve:
		os.Exit(starve())
	case roleHide:
		fmt.Println("error:", hide())
		os.Exit(1)
	}
	os.Exit(torture.Main(m))
}

// escape starts a process that left the group and outlives its parent.
func escape() int {
	if os.Getenv("FAKELLAMA_GRANDCHILD") != "" {
		return fakellama.Main(nil, os.Getenv, os.Stdout, os.Stderr)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FAKELLAMA_GRANDCHILD=1", roleName+"="+roleServer)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 3
	}
	return fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
}

// parent is a program that supervises a server and prints the pids.
func parent() int {
	spec := Spec{
		Argv: []string{os.Args[0]}, SocketDir: os.Args[1],
		Env: []string{roleName + "=" + os.Args[2], fakellama.EnvScript + "=" + os.Getenv(fakellama.EnvScript)},
	}
	c, err := Start(context.Background(), spec)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(c.Pid(), c.record.Marker)
	select {}
}

// waitFor polls for a condition; the limit only bounds a failure.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 12_000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
}

// fake is a spec for the imitation under a script.
func fake(t *testing.T, role string, s fakellama.Script) Spec {
	t.Helper()
	env, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	return Spec{
		Argv: []string{os.Args[0]}, Env: []string{roleName + "=" + role, env}, SocketDir: filepath.Join(t.TempDir(), "run"),
		StartTimeout: 20 * time.Second, DrainTimeout: -1, StopTimeout: 5 * time.Second,
	}
}

func mustStart(t *testing.T, spec Spec) *Child {
	t.Helper()
	c, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopClean(t, c) })
	return c
}

// stopClean stops a child and checks that nothing of it is left.
func stopClean(t *testing.T, c *Child) {
	t.Helper()
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, c.spec.SocketDir, c.record.Marker)
	c.client.CloseIdleConnections()
}

func nothingLeft(t *testing.T, socketDir, marker string) {
	t.Helper()
	waitFor(t, "every process to go", func() bool { return len(marked(marker)) == 0 })
	entries, err := os.ReadDir(socketDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the socket folder", e.Name())
	}
}

func complete(ctx context.Context, c *Child) (*http.Response, error) {
	const body = `{"prompt":"Once upon a time","n_predict":400,"temperature":0,"stream":true}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL()+"/completion", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return c.HTTPClient().Do(req)
}

// readAll reads a completion and gives what came.
func readAll(ctx context.Context, c *Child) (string, error) {
	res, err := complete(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	return string(raw), err
}

// until waits for an event that leads to a state.
func until(t *testing.T, events <-chan Event, to State) Event {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the events ended before %s", to)
			}
			if e.To == to {
				return e
			}
		case <-limit:
			t.Fatalf("no event to %s", to)
		}
	}
}
