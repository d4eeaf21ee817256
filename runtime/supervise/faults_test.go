//go:build linux

package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 18: the child exits before it is ready.
func TestFault18ExitBeforeReady(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
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
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{LoadForever: true})
		spec.StartTimeout = 2 * time.Second // it must have come as far as loading
		_, err := Start(t.Context(), spec)
		var stuck *HangError
		if !errors.As(err, &stuck) || !errors.Is(err, ErrStartTimeout) || stuck.State != Loading {
			t.Fatalf("got %v, want a start that timed out while loading", err)
		}
		spec = fake(t, roleServer, fakellama.Script{Process: fakellama.Process{NeverListens: true}})
		spec.StartTimeout = 300 * time.Millisecond
		if _, err := Start(t.Context(), spec); !errors.As(err, &stuck) || stuck.State != Starting {
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

// wedges are the ways in which decoding comes to an end: /slots goes on telling
// the same, or says nothing.
func wedges() []fakellama.Kind { return []fakellama.Kind{fakellama.KindStall, fakellama.KindWedge} }

// Fault 20: ready, then wedged with the socket open.
func TestFault20Wedged(t *testing.T) {
	for _, kind := range wedges() {
		t.Run(string(kind), func(t *testing.T) {
			torture.Rounds(t, func(t *testing.T) { wedged(t, kind) })
		})
	}
}

func wedged(t *testing.T, kind fakellama.Kind) {
	spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: kind, AfterTokens: 3}}})
	spec.StallTimeout, spec.StallGrace = time.Second, 500*time.Millisecond
	c := mustStart(t, spec)
	events, done := c.Subscribe()
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // bounds a failure
	defer cancel()
	got, err := readAll(ctx, c)
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
}

// A slow stream whose tokens do move is no stall, and neither is a long pause
// without requests.
func TestProgressIsNoStall(t *testing.T) {
	spec := fake(t, roleServer, fakellama.Script{Reply: strings.Repeat("word ", 50), TokenDelay: 50 * time.Millisecond, PromptDelay: 50 * time.Millisecond})
	spec.StallTimeout, spec.StallGrace = 2*time.Second, time.Millisecond
	c := mustStart(t, spec)
	time.Sleep(spec.StallTimeout * 3 / 2)
	if _, err := readAll(t.Context(), c); err != nil || c.State() != Ready {
		t.Fatalf("state %s, error %v", c.State(), err)
	}
}

// Fault 21: SIGSEGV, and SIGKILL as the kernel's OOM killer sends it, in
// mid-stream.
func TestFault21DiesInMidStream(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGKILL, syscall.SIGABRT} {
			spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 5, Signal: int(sig)}}})
			c := mustStart(t, spec)
			got, err := readAll(t.Context(), c)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Signal != sig || exit.State != Ready {
				t.Fatalf("got %v, want the end by %v, after %q", err, sig, got)
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
	torture.Rounds(t, func(t *testing.T) {
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
	torture.Rounds(t, func(t *testing.T) {
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
	torture.Rounds(t, func(t *testing.T) {
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
