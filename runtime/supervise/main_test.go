//go:build linux

package supervise

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/procstat"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

const (
	roleName      = "SUPERVISE_TEST_ROLE"
	roleServer    = "server" // the fake llama-server
	roleEscape    = "escape" // the same, with a descendant in its own session
	roleParent    = "parent" // supervises a server until killed
	roleExhausted = "starve" // stops a server with no descriptor left
	roleHungry    = "hungry" // the fake, which allocates until it is killed
	roleGrowing   = "grow"   // the fake, which allocates until it is killed from the first completion on
	roleLoops     = "loop"   // the fake, which never answers at loopPath
	roleHideSlots = "hide"   // the fake, which hides /slots once the file in hideSlotsName exists
)

// TestMain runs this binary as the process that the test needs.
func TestMain(m *testing.M) {
	switch os.Getenv(roleName) {
	case roleServer:
		fakellama.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	case roleHungry:
		if slices.Contains(os.Args, "--help") {
			allocateForever()
		}
		go allocateForever()
		fakellama.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	case roleEscape:
		os.Exit(runEscaping())
	case roleParent:
		os.Exit(superviseUntilKilled())
	case roleExhausted:
		os.Exit(runExhausted())
	case roleHideSlots:
		fmt.Println("error:", serveHidingSlots())
		os.Exit(1)
	case roleLoops:
		fmt.Println("error:", serveLoops())
		os.Exit(1)
	case roleGrowing:
		fmt.Println("error:", serveFake(func(w http.ResponseWriter, r *http.Request, server http.Handler) {
			if r.URL.Path == "/completion" {
				allocateForever()
			}
			server.ServeHTTP(w, r)
		}))
		os.Exit(1)
	}
	// The parallel tests wait for child processes and do not compute, so more of them
	// run together than there are processors.
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(torture.Main(m.Run))
}

// allocateForever allocates a MiB every millisecond, up to 4 GiB.
func allocateForever() {
	var kept [][]byte
	for range 4096 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(kept)
}

// runEscaping starts a process that leaves the group and outlives its parent.
func runEscaping() int {
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

// superviseUntilKilled supervises a server and prints its pid and marker.
func superviseUntilKilled() int {
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

// fakeSpec returns a spec for the fake llama-server with a script.
func fakeSpec(t *testing.T, role string, s fakellama.Script) Spec {
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

// stopClean stops a child and checks that nothing is left.
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
	poll.Until(t, "every process to exit", func() bool { return len(processesWithMarker(marker)) == 0 })
	entries, err := os.ReadDir(socketDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the socket directory", e.Name())
	}
}

// waitForState waits for an event that leads to a state.
func waitForState(t *testing.T, events <-chan Event, to State) Event {
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

func postCompletion(ctx context.Context, c *Child) (*http.Response, error) {
	const body = `{"prompt":"Once upon a time","n_predict":400,"temperature":0,"stream":true}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL()+"/completion", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return c.HTTPClient().Do(req)
}

// readAll reads a completion and returns what arrived.
func readAll(ctx context.Context, c *Child) (string, error) {
	res, err := postCompletion(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	return string(raw), err
}

// startParent starts a program that supervises a server, and returns the program,
// the server's pid and its marker.
func startParent(t *testing.T, dir, role string, s fakellama.Script) (parent *exec.Cmd, child int, marker string) {
	t.Helper()
	env, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], dir, role)
	cmd.Env = append(os.Environ(), roleName+"="+roleParent, env)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &child, &marker); err != nil {
		t.Fatalf("the parent says %q", line)
	}
	return cmd, child, marker
}

func killProcess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the signal is its error
}

func isProcessRunning(pid int) bool {
	s, err := procstat.Read(pid)
	return err == nil && procstat.IsRunning(pid, s.Start)
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
