//go:build linux

package supervise

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 25: the recorded pid belongs to another process now.
func TestFault25ReusedPid(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
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
			"00000001": {Boot: bootID(), Parent: os.Getpid(), ParentStart: 1, Child: innocent.Process.Pid, ChildStart: start - 1, Marker: newID(12)},
			"00000002": {Boot: "before", Parent: os.Getpid(), ParentStart: 1, Child: innocent.Process.Pid, ChildStart: start, Marker: newID(12)},
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
	torture.Rounds(t, func(t *testing.T) {
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
		if !errors.Is(err, ErrWrongPeer) {
			t.Errorf("got %v, want ErrWrongPeer", err)
		}
		_ = impostor.Close()
		served.Wait()

		spec = fake(t, roleServer, fakellama.Script{Health: fakellama.HealthWrong})
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrWrongPeer) {
			t.Errorf("got %v, want ErrWrongPeer for a foreign /health", err)
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
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1}}})
		spec.SocketDir = filepath.Join(t.TempDir(), strings.Repeat("long, ", 20))
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
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
		if err := removeStale(name); !errors.Is(err, ErrListen) {
			t.Errorf("a file in the socket's place: %v, want ErrListen", err)
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the file was removed: %v", err)
		}
	})
}

// Fault 28, the process lives: a cut connection is an error and no end, and no
// death is claimed.
func TestFault28CutWhileAlive(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
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
	torture.Rounds(t, func(t *testing.T) {
		c := mustStart(t, fake(t, roleServer, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		res, err := complete(ctx, c)
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
		waitFor(t, "the request to count no more", func() bool { return c.ActiveRequests() == 0 })
	})
}

func slotBusy(t *testing.T, c *Child) bool {
	t.Helper()
	_, busy, err := slotsDigest(t.Context(), &http.Client{Transport: c.cur.probe}, c.base, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return busy
}

// Fault 30: a flood on stderr slows no stream and fills no memory; a crash loop
// ends.
func TestFault30FloodAndCrashLoop(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const flood = 64 << 20
		c := mustStart(t, fake(t, roleServer, fakellama.Script{Process: fakellama.Process{FloodBytes: flood}}))
		if got, err := readAll(t.Context(), c); err != nil || !strings.Contains(got, `"stop":true`) {
			t.Fatalf("a stream during the flood: %v", err)
		}
		kept := 0
		for _, line := range c.LogTail() {
			kept += len(line)
		}
		if len(c.LogTail()) > c.spec.LogLines || kept > c.spec.LogLines*(maxLine+8) {
			t.Errorf("%d lines with %d bytes were kept", len(c.LogTail()), kept)
		}
		stopClean(t, c)

		spec := fake(t, roleServer, fakellama.Script{Health: fakellama.HealthLoading, Process: fakellama.Process{ExitAfterLoad: true, ExitSignal: int(syscall.SIGABRT), Log: "HW Exception by GPU node-1 (Agent handle: 0x1) reason :GPU Hang"}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, MaxFailures: 3}
		settled := 0
		spec.Restart.BeforeRestart = func(context.Context) error { settled++; return nil }
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
