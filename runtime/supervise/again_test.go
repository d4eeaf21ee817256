//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 30, slowly: what fails again and again ends, however long each try takes.
func TestFault30SlowCrashLoop(t *testing.T) {
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
				spec := fake(t, roleServer, c.script)
				if errors.Is(c.cause, ErrStartTimeout) {
					spec.StartTimeout = 300 * time.Millisecond
				}
				spec.StallTimeout, spec.StallGrace = 200*time.Millisecond, 100*time.Millisecond
				// Each try takes longer than that, and no time of it is a good one.
				spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3, ResetAfter: 250 * time.Millisecond}
				child, err := Start(ctx, spec)
				if err == nil {
					for ctx.Err() == nil && !child.State().Final() {
						_, _ = readAll(ctx, child) // it is the error at the end that tells
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

// A child that was well for a while does not die of what happened before.
func TestWellRunsEndNoService(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 2, ResetAfter: 10 * time.Millisecond}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		for range 3 {
			time.Sleep(spec.Restart.ResetAfter)
			if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			until(t, events, Ready)
		}
	})
}

// What does not fit into memory is not tried again as it is, unless it did fit.
func TestOutOfMemoryAtTheFirstStart(t *testing.T) {
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
			spec := fake(t, roleServer, fakellama.Script{})
			spec.Argv = []string{"sh", "-c", script, os.Args[0]}
			spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
			child, err := Start(t.Context(), spec)
			if err == nil {
				events, done := child.Subscribe()
				if err := unix.Kill(child.Pid(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				until(t, events, Ready)
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
