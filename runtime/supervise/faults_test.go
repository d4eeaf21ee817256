//go:build linux

package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

const (
	roleName   = "SUPERVISE_TEST_ROLE"
	roleServer = "server" // be the imitation of llama-server
	roleEscape = "escape" // the same, with a descendant in a session of its own
	roleParent = "parent" // supervise a server until killed
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
	}
	os.Exit(m.Run())
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

// torture repeats a test GOROCM_TORTURE times and looks for what it left.
func torture(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	n := 1
	if v := os.Getenv("GOROCM_TORTURE"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 1 {
			t.Fatalf("GOROCM_TORTURE=%s is no count", v)
		}
	}
	for i := range n {
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		ok := t.Run(strconv.Itoa(i), f)
		waitFor(t, "goroutines and files to go", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
		})
		if !ok {
			return
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// waitFor polls for a condition; the limit only bounds a failure.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
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

func complete(ctx context.Context, c *Child, stream bool) (*http.Response, error) {
	body := fmt.Sprintf(`{"prompt":"Once upon a time","n_predict":400,"stream":%v}`, stream)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL()+"/completion", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return c.HTTPClient().Do(req)
}

// readAll reads a completion and gives what came.
func readAll(ctx context.Context, c *Child) (string, error) {
	res, err := complete(ctx, c, true)
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

// Fault 18: the child exits before it is ready.
func TestFault18ExitBeforeReady(t *testing.T) {
	torture(t, func(t *testing.T) {
		for _, after := range []bool{false, true} {
			spec := fake(t, roleServer, fakellama.Script{Health: fakellama.HealthLoading, Process: fakellama.Process{
				ExitEarly: !after, ExitAfterLoad: after, ExitCode: 1,
				Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'",
			}})
			_, err := Start(t.Context(), spec)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Code != 1 || !errors.Is(err, ErrModelInvalid) {
				t.Fatalf("got %v, want an ExitError of status 1 for an invalid model", err)
			}
			if !strings.Contains(err.Error(), "invalid magic") || exit.Remedy == "" {
				t.Errorf("the error must carry the log and a remedy: %v", err)
			}
			if entries, err := os.ReadDir(spec.SocketDir); err != nil || len(entries) != 0 {
				t.Errorf("left in the socket folder: %v, %v", entries, err)
			}
		}
	})
}

// Fault 19: the child hangs while loading; also with the start cancelled.
func TestFault19HangsWhileLoading(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{LoadForever: true})
		spec.StartTimeout = 300 * time.Millisecond
		_, err := Start(t.Context(), spec)
		var stuck *StuckError
		if !errors.As(err, &stuck) || !errors.Is(err, ErrStartTimeout) || stuck.While != Loading {
			t.Fatalf("got %v, want a start that timed out while loading", err)
		}
		spec = fake(t, roleServer, fakellama.Script{Process: fakellama.Process{NeverListens: true}})
		spec.StartTimeout = 300 * time.Millisecond
		if _, err := Start(t.Context(), spec); !errors.As(err, &stuck) || stuck.While != Starting {
			t.Fatalf("got %v, want a start that timed out while starting", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		spec = fake(t, roleServer, fakellama.Script{LoadForever: true})
		because := errors.New("the user went home")
		spec.OnEvent = func(e Event) {
			if e.To == Loading {
				cancel(because)
			}
		}
		if _, err := Start(ctx, spec); !errors.Is(err, because) {
			t.Fatalf("got %v, want the cause of the cancellation", err)
		}
	})
}

// Fault 20: ready, then wedged with the socket open.
func TestFault20Wedged(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStall, AfterTokens: 3}}})
		spec.StallTimeout, spec.StallGrace = 400*time.Millisecond, 200*time.Millisecond
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		got, err := readAll(t.Context(), c)
		if !errors.Is(err, ErrStalled) {
			t.Fatalf("got %v, want ErrStalled", err)
		}
		if n := strings.Count(got, "data: "); n != 3 {
			t.Errorf("%d events came before the stall, want 3", n)
		}
		if e := until(t, events, Stalled); !errors.Is(e.Cause, ErrStalled) {
			t.Errorf("the event's cause is %v", e.Cause)
		}
		<-c.Done()
		if c.State() != Failed || !errors.Is(c.Err(), ErrStalled) {
			t.Errorf("state %s, error %v", c.State(), c.Err())
		}
	})
}

// A slow stream whose tokens do move is no stall, and neither is a long pause
// without requests.
func TestProgressIsNoStall(t *testing.T) {
	spec := fake(t, roleServer, fakellama.Script{Reply: strings.Repeat("word ", 20), TokenDelay: 50 * time.Millisecond, PromptDelay: 50 * time.Millisecond})
	spec.StallTimeout, spec.StallGrace = 600*time.Millisecond, time.Millisecond
	c := mustStart(t, spec)
	time.Sleep(2 * spec.StallTimeout)
	if _, err := readAll(t.Context(), c); err != nil || c.State() != Ready {
		t.Fatalf("state %s, error %v", c.State(), err)
	}
}

// Fault 21: SIGSEGV, and SIGKILL as the kernel's OOM killer sends it, in
// mid-stream.
func TestFault21DiesInMidStream(t *testing.T) {
	torture(t, func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGKILL, syscall.SIGABRT} {
			spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 5, Signal: int(sig)}}})
			c := mustStart(t, spec)
			got, err := readAll(t.Context(), c)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Signal != sig || exit.While != Ready {
				t.Fatalf("got %v, want the end by %v", err, sig)
			}
			if n := strings.Count(got, "data: "); n != 5 {
				t.Errorf("%d events, want the 5 that were sent", n)
			}
			<-c.Done()
			if _, err := readAll(t.Context(), c); !errors.As(err, &exit) {
				t.Errorf("a request to a failed child: %v", err)
			}
		}
	})
}

// Fault 22: the child ignores SIGTERM.
func TestFault22IgnoresSIGTERM(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}})
		spec.StopTimeout = 200 * time.Millisecond
		c := mustStart(t, spec)
		stopClean(t, c)
		if c.State() != Stopped || c.Err() != nil {
			t.Errorf("state %s, error %v", c.State(), c.Err())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		spec.StopTimeout, spec.SocketDir = time.Hour, filepath.Join(t.TempDir(), "run")
		c = mustStart(t, spec)
		if err := c.Stop(ctx); err != nil { // a cancelled stop kills at once
			t.Error(err)
		}
	})
}

// runParent starts a program that supervises and gives its pids.
func runParent(t *testing.T, dir, role string, s fakellama.Script) (parent *exec.Cmd, child int, marker string) {
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

// Fault 23: the parent is killed by SIGKILL; no child may outlive it.
func TestFault23ParentKilled(t *testing.T) {
	torture(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		cmd, child, marker := runParent(t, dir, roleServer, fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}})
		kill(t, cmd)
		waitFor(t, "the child to die with its parent", func() bool { return !running(child) })
		if n, err := ReapOrphans(dir, nil); err != nil || n != 0 {
			t.Errorf("ended %d orphans (%v), want none to be left", n, err)
		}
		nothingLeft(t, dir, marker)
	})
}

// Fault 24: grandchildren survive: in the group, in a session of their own, and
// both kinds when the parent was killed.
func TestFault24Grandchildren(t *testing.T) {
	torture(t, func(t *testing.T) {
		c := mustStart(t, fake(t, roleServer, fakellama.Script{Process: fakellama.Process{Grandchild: true}}))
		if n := len(marked(c.record.Marker)); n != 2 {
			t.Fatalf("%d processes, want child and grandchild", n)
		}
		stopClean(t, c)

		c = mustStart(t, fake(t, roleEscape, fakellama.Script{Process: fakellama.Process{Grandchild: true}}))
		if n := len(marked(c.record.Marker)); n != 3 {
			t.Fatalf("%d processes, want child and two grandchildren", n)
		}
		if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil { // not even a crash leaves them
			t.Fatal(err)
		}
		<-c.Done()
		stopClean(t, c)

		dir := filepath.Join(t.TempDir(), "run")
		cmd, child, marker := runParent(t, dir, roleEscape, fakellama.Script{Process: fakellama.Process{Grandchild: true}})
		kill(t, cmd)
		waitFor(t, "the child to die with its parent", func() bool { return !running(child) })
		if n, err := ReapOrphans(dir, nil); err != nil || n != 2 {
			t.Errorf("ended %d orphans (%v), want both grandchildren", n, err)
		}
		nothingLeft(t, dir, marker)
	})
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the signal is its error
}

func running(pid int) bool {
	start, err := startTime(pid)
	return err == nil && alive(pid, start)
}

// Fault 25: the recorded pid belongs to another process now.
func TestFault25ReusedPid(t *testing.T) {
	torture(t, func(t *testing.T) {
		innocent := exec.Command(os.Args[0])
		innocent.Env = append(os.Environ(), roleName+"="+roleServer, "FAKELLAMA_GRANDCHILD=1")
		if err := innocent.Start(); err != nil {
			t.Fatal(err)
		}
		defer kill(t, innocent)
		start, err := startTime(innocent.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "run")
		for name, r := range map[string]record{
			"other-start": {Boot: bootID(), Parent: os.Getpid(), ParentStart: 1, Child: innocent.Process.Pid, ChildStart: start - 1, Marker: newID(12)},
			"other-boot":  {Boot: "before", Parent: os.Getpid(), ParentStart: 1, Child: innocent.Process.Pid, ChildStart: start, Marker: newID(12)},
		} {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := r.write(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := ReapOrphans(dir, nil); err != nil || n != 0 {
			t.Errorf("ended %d processes (%v), want none", n, err)
		}
		if !running(innocent.Process.Pid) {
			t.Error("an innocent process was ended")
		}
		nothingLeft(t, dir, "no such marker")
	})
}

// Fault 26: somebody else answers on the child's socket.
func TestFault26Impostor(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Process: fakellama.Process{NeverListens: true}})
		impostor := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"ok"}`)
		})}
		var served sync.WaitGroup
		spec.OnEvent = func(e Event) {
			if e.To != Starting || e.Pid == 0 {
				return
			}
			args := processArgs(t, e.Pid)
			l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", args["--host"])
			if err != nil {
				t.Errorf("the impostor cannot listen: %v", err)
				return
			}
			served.Go(func() { _ = impostor.Serve(l) })
		}
		_, err := Start(t.Context(), spec)
		if !errors.Is(err, ErrImpostor) {
			t.Errorf("got %v, want ErrImpostor", err)
		}
		_ = impostor.Close()
		served.Wait()

		spec = fake(t, roleServer, fakellama.Script{Health: fakellama.HealthWrong})
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrImpostor) {
			t.Errorf("got %v, want ErrImpostor for a foreign /health", err)
		}
	})
}

// processArgs reads the flags of a running process.
func processArgs(t *testing.T, pid int) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		t.Error(err)
		return nil
	}
	out := map[string]string{}
	args := strings.Split(string(raw), "\x00")
	for i := 0; i+1 < len(args); i++ {
		out[args[i]] = args[i+1]
	}
	return out
}

// Fault 27: a stale socket, something else in its place, and a path that is too
// long for a socket.
func TestFault27SocketPaths(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1}}})
		spec.SocketDir = filepath.Join(t.TempDir(), strings.Repeat("long, ", 20))
		spec.Restart = Policy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		if len(c.Addr()) > maxSocketPath {
			t.Errorf("the socket's path has %d bytes", len(c.Addr()))
		}
		info, err := os.Stat(filepath.Dir(c.Addr()))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the socket's folder: %v, %v; want 0700", info.Mode(), err)
		}
		events, done := c.Subscribe()
		defer done()
		first := c.Pid()
		if err := unix.Kill(first, unix.SIGKILL); err != nil { // leaves its socket behind
			t.Fatal(err)
		}
		until(t, events, Ready)
		if c.Pid() == first || c.Pid() == 0 {
			t.Errorf("pid %d after the restart, %d before", c.Pid(), first)
		}
		short := c.record.ShortDir
		stopClean(t, c)
		if _, err := os.Stat(short); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the short folder is left: %v", err)
		}

		name := filepath.Join(t.TempDir(), socketName)
		if err := os.WriteFile(name, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := removeStale(name); !errors.Is(err, ErrAddress) {
			t.Errorf("a file in the socket's place: %v, want ErrAddress", err)
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the file was removed: %v", err)
		}
	})
}

// Fault 28, the process lives: a cut connection is an error and no end, and no
// death is claimed.
func TestFault28CutWhileAlive(t *testing.T) {
	torture(t, func(t *testing.T) {
		c := mustStart(t, fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{
			{Kind: fakellama.KindCutRune, AfterTokens: 2, Request: 1}, {Kind: fakellama.KindCut, AfterBytes: 77, Request: 2},
		}}))
		for range 2 {
			_, err := readAll(t.Context(), c)
			var exit *ExitError
			if !errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &exit) {
				t.Fatalf("got %v, want an unexpected end and no death", err)
			}
		}
		if got, err := readAll(t.Context(), c); err != nil || !strings.Contains(got, `"stop":true`) || c.State() != Ready {
			t.Errorf("the next request: %v, state %s", err, c.State())
		}
	})
}

// Fault 29: the client goes away and its slot is free again.
func TestFault29ClientCancels(t *testing.T) {
	torture(t, func(t *testing.T) {
		c := mustStart(t, fake(t, roleServer, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		res, err := complete(ctx, c, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if !slotBusy(t, c) {
			t.Fatal("no slot works while a stream runs")
		}
		begin := time.Now()
		cancel()
		waitFor(t, "the slot to be free", func() bool { return !slotBusy(t, c) })
		t.Logf("free after %s", time.Since(begin).Round(time.Millisecond))
		_ = res.Body.Close()
		waitFor(t, "the request to count no more", func() bool { return c.Running() == 0 })
	})
}

func slotBusy(t *testing.T, c *Child) bool {
	t.Helper()
	_, busy, err := slotsDigest(t.Context(), &http.Client{Transport: c.probe}, c.base, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return busy
}

// Fault 30: a flood on stderr slows no stream and fills no memory; a crash loop
// ends.
func TestFault30FloodAndCrashLoop(t *testing.T) {
	torture(t, func(t *testing.T) {
		const flood = 64 << 20
		c := mustStart(t, fake(t, roleServer, fakellama.Script{Process: fakellama.Process{FloodBytes: flood}}))
		if got, err := readAll(t.Context(), c); err != nil || !strings.Contains(got, `"stop":true`) {
			t.Fatalf("a stream during the flood: %v", err)
		}
		kept := 0
		for _, line := range c.Log() {
			kept += len(line)
		}
		if len(c.Log()) > c.spec.LogLines || kept > c.spec.LogLines*(maxLine+8) {
			t.Errorf("%d lines with %d bytes were kept", len(c.Log()), kept)
		}
		stopClean(t, c)

		spec := fake(t, roleServer, fakellama.Script{Health: fakellama.HealthLoading, Process: fakellama.Process{ExitAfterLoad: true, ExitSignal: int(syscall.SIGABRT), Log: "HW Exception by GPU node-1 (Agent handle: 0x1) reason :GPU Hang"}})
		spec.Restart = Policy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, Burst: 3}
		settled := 0
		spec.Restart.Settle = func(context.Context) error { settled++; return nil }
		_, err := Start(t.Context(), spec)
		var exit *ExitError
		if !errors.Is(err, ErrCrashLoop) || !errors.Is(err, ErrGPUHang) || !errors.As(err, &exit) {
			t.Fatalf("got %v, want a crash loop of GPU hangs", err)
		}
		if settled != 2 {
			t.Errorf("waited %d times for the memory, want before each of the 2 new starts", settled)
		}
	})
}

// A request whose process dies before it answered is sent again to the next
// one; one that had a token is not.
func TestRetriesOnlyWithoutTokens(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindNoAnswer, Request: 1}}})
		spec.Restart = Policy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		type result struct {
			text string
			err  error
		}
		results := make(chan result, 1)
		go func() {
			// It is the first request of each process, which none answers.
			text, err := readAll(t.Context(), c)
			results <- result{text, err}
		}()
		waitFor(t, "the request to run", func() bool { return c.Running() == 1 })
		events, done := c.Subscribe()
		defer done()
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, events, Ready)
		waitFor(t, "the request to be sent again", func() bool { return c.Running() == 1 })
		stopClean(t, c)
		if r := <-results; r.err == nil {
			t.Errorf("got %d bytes from servers that never answer", len(r.text))
		}

		spec = fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 1, Signal: int(syscall.SIGSEGV)}}})
		spec.Restart = Policy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c = mustStart(t, spec)
		text, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.As(err, &exit) || strings.Count(text, "data: ") != 1 {
			t.Errorf("got %d events and %v, want one event and the death", strings.Count(text, "data: "), err)
		}
	})
}

func TestStatesAreTold(t *testing.T) {
	torture(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []State
		spec := fake(t, roleServer, fakellama.Script{LoadTime: time.Second})
		spec.OnEvent = func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 || seen[len(seen)-1] != e.To {
				seen = append(seen, e.To)
			}
		}
		c := mustStart(t, spec)
		stopClean(t, c)
		mu.Lock()
		defer mu.Unlock()
		if want := []State{Starting, Loading, Ready, Stopping, Stopped}; !slices.Equal(seen, want) {
			t.Errorf("states %v, want %v", seen, want)
		}
		if _, err := readAll(t.Context(), c); !errors.Is(err, ErrStopped) {
			t.Errorf("a request after the end: %v, want ErrStopped", err)
		}
	})
}

func TestNothingSecretIsSeen(t *testing.T) {
	t.Setenv("LLAMA_ARG_PORT", "1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	c := mustStart(t, fake(t, roleServer, fakellama.Script{}))
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Pid()), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), c.APIKey()) {
		t.Error("the key is on the command line")
	}
	d := c.Diagnose()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), c.APIKey()) {
		t.Error("the key is in the diagnosis")
	}
	if got := fmt.Sprint(d.Scrubbed); !strings.Contains(got, "LLAMA_ARG_PORT") || !strings.Contains(got, "http_proxy") {
		t.Errorf("scrubbed %s", got)
	}
	if d.State != Ready || d.Pid != c.Pid() || len(d.Argv) < 3 || d.Addr != c.Addr() {
		t.Errorf("diagnosis %+v", d)
	}
}

func TestTCP(t *testing.T) {
	torture(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{})
		spec.TCP = "127.0.0.1:0"
		c := mustStart(t, spec)
		if _, err := readAll(t.Context(), c); err != nil {
			t.Error(err)
		}
		host, port, err := net.SplitHostPort(c.Addr())
		if err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("address %s (%v)", c.Addr(), err)
		}
		// Somebody else's port: the child cannot listen and says so.
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		spec = fake(t, roleServer, fakellama.Script{})
		spec.TCP = l.Addr().String()
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrAddress) {
			t.Errorf("got %v, want ErrAddress", err)
		}
	})
}

func TestProbeAndAdapt(t *testing.T) {
	script := fakellama.Script{Process: fakellama.Process{OldFlags: []string{"--offline", "--kv-unified"}}}
	env, err := script.Env()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	t.Setenv(roleName, roleServer)
	cache := t.TempDir()
	probe := Probe{Argv: []string{os.Args[0]}, CacheDir: cache, Dir: t.TempDir()}
	flags, err := ProbeFlags(t.Context(), probe)
	if err != nil {
		t.Fatal(err)
	}
	if flags.Knows("--offline") || !flags.Knows("--ctx-size") || !flags.Takes["--ctx-size"] {
		t.Fatalf("knows %d flags, or the wrong ones", len(flags.Takes))
	}
	spec := fake(t, roleServer, script)
	spec.Flags, spec.Args = flags, []string{"--ctx-size", "512", "--offline", "--kv-unified"}
	c := mustStart(t, spec)
	if d := c.Diagnose(); len(d.Adapted) != 2 || strings.Contains(strings.Join(d.Argv, " "), "--offline") {
		t.Errorf("adapted %q, ran %q", d.Adapted, d.Argv)
	}
	// The second time nothing is run: the answer is kept by the file's content.
	t.Setenv(roleName, roleParent)
	again, err := ProbeFlags(t.Context(), probe)
	if err != nil || len(again.Takes) != len(flags.Takes) {
		t.Errorf("the kept answer: %v", err)
	}
	// Without its flag dropped, the old server refuses.
	spec = fake(t, roleServer, script)
	spec.Args = []string{"--offline"}
	if _, err := Start(t.Context(), spec); !errors.Is(err, ErrBadArgument) {
		t.Errorf("got %v, want ErrBadArgument", err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "data")
	if err := os.WriteFile(script, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spec Spec
		want error
	}{
		"nothing":        {Spec{}, ErrSpec},
		"missing":        {Spec{Argv: []string{filepath.Join(dir, "no-such")}}, ErrLibraryMissing},
		"not executable": {Spec{Argv: []string{script}}, ErrPermission},
		"own host":       {Spec{Argv: []string{os.Args[0]}, Args: []string{"--host", "0.0.0.0"}}, ErrSpec},
		"own key":        {Spec{Argv: []string{os.Args[0]}, Args: []string{"--api-key=x"}}, ErrSpec},
		"bad env":        {Spec{Argv: []string{os.Args[0]}, Env: []string{"x"}}, ErrSpec},
		"bad tcp":        {Spec{Argv: []string{os.Args[0]}, TCP: "localhost"}, ErrSpec},
	} {
		t.Run(name, func(t *testing.T) {
			tt.spec.SocketDir = filepath.Join(t.TempDir(), "run")
			if _, err := Start(t.Context(), tt.spec); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
