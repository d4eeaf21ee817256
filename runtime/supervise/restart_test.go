//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// A run that was healthy for ResetAfter ends the row of failures.
func TestHealthyRunResetsFailures(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 2, ResetAfter: 10 * time.Millisecond}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		for range 3 {
			time.Sleep(spec.Restart.ResetAfter)
			if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitForState(t, events, Ready)
		}
	})
}

// A lack of memory is not retried, unless the program has been ready before.
func TestOutOfMemoryBeforeReadyIsNotRestarted(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			lacks string // the starts that lack memory
			want  int    // starts
			err   error
		}{
			"the first": {"1", 1, ErrOutOfMemory},
			"a later":   {"2", 3, nil},
		} {
			file := filepath.Join(t.TempDir(), "starts")
			script := fmt.Sprintf(`echo >>%s; [ $(wc -l <%s) != %s ] || { echo 'cudaMalloc failed: out of memory' >&2; exit 1; }; exec "$0" "$@"`, file, file, c.lacks)
			spec := fakeSpec(t, roleServer, fakellama.Script{})
			spec.Argv = []string{"sh", "-c", script, os.Args[0]}
			spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
			child, err := Start(t.Context(), spec)
			if err == nil {
				events, done := child.Subscribe()
				if err := unix.Kill(child.Pid(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				waitForState(t, events, Ready)
				done()
				stopClean(t, child)
			}
			if !errors.Is(err, c.err) || (c.err == nil && err != nil) || errors.Is(err, ErrCrashLoop) {
				t.Errorf("%s: got %v, want %v", name, err, c.err)
			}
			if raw, err := os.ReadFile(file); err != nil || len(raw) != c.want {
				t.Errorf("%s: %d starts (%v), want %d", name, len(raw), err, c.want)
			}
		}
	})
}

// Fault 30: a child that fails repeatedly ends in ErrCrashLoop, however long
// each attempt takes.
func TestFault30_SlowCrashLoop(t *testing.T) {
	for name, c := range map[string]struct {
		script fakellama.Script
		cause  error
	}{
		"never ready":            {fakellama.Script{Process: fakellama.Process{NeverListens: true}}, ErrStartTimeout},
		"wedged when it is used": {fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStall, AfterTokens: 1}}}, ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			torture.Rounds(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // bounds a failure
				defer cancel()
				spec := fakeSpec(t, roleServer, c.script)
				if errors.Is(c.cause, ErrStartTimeout) {
					spec.StartTimeout = 300 * time.Millisecond
				}
				spec.StallTimeout, spec.StallGrace = 200*time.Millisecond, 100*time.Millisecond
				// Each attempt takes longer than ResetAfter and is never healthy.
				spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3, ResetAfter: 250 * time.Millisecond}
				child, err := Start(ctx, spec)
				if err == nil {
					for ctx.Err() == nil && !child.State().Final() {
						_, _ = readAll(ctx, child) // the child's final error counts
					}
					stopClean(t, child)
					err = child.Err()
				}
				if !errors.Is(err, ErrCrashLoop) || !errors.Is(err, c.cause) {
					t.Errorf("got %v, want a crash loop of: %v", err, c.cause)
				}
			})
		})
	}
}

// Fault 30: a flood on stderr neither slows a stream nor fills the memory; a crash
// loop ends.
func TestFault30_FloodAndCrashLoop(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const flood = 64 << 20
		c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{FloodBytes: flood}}))
		if got, err := readAll(t.Context(), c); err != nil || !strings.Contains(got, `"stop":true`) {
			t.Fatalf("a stream during the flood: %v", err)
		}
		kept := 0
		for _, line := range c.LogTail() {
			kept += len(line)
		}
		if len(c.LogTail()) > c.spec.LogLines || kept > c.spec.LogLines*(maxLine+8) {
			t.Errorf("%d lines with %d bytes are kept", len(c.LogTail()), kept)
		}
		stopClean(t, c)

		spec := fakeSpec(t, roleServer, fakellama.Script{Health: fakellama.HealthLoading, Process: fakellama.Process{ExitAfterLoad: true, ExitSignal: int(syscall.SIGABRT), Log: "HW Exception by GPU node-1 (Agent handle: 0x1) reason :GPU Hang"}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, MaxFailures: 3}
		waits := 0
		spec.Restart.BeforeRestart = func(context.Context) error { waits++; return nil }
		_, err := Start(t.Context(), spec)
		var exit *ExitError
		if !errors.Is(err, ErrCrashLoop) || !errors.Is(err, ErrGPUHang) || !errors.As(err, &exit) {
			t.Fatalf("got %v, want a crash loop of GPU hangs", err)
		}
		if waits != 2 {
			t.Errorf("BeforeRestart ran %d times, want before each of the 2 restarts", waits)
		}
	})
}
