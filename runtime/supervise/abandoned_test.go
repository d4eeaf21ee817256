//go:build linux

package supervise

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// stateOf returns the state of a process as proc(5) has it: T for a stopped one.
func stateOf(t *testing.T, pid int) byte {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(raw, []byte(") "))
	return rest[0]
}

func TestPauseStopsTheProcessForATime(t *testing.T) {
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	defer stopClean(t, c)
	paused := make(chan struct{})
	go func() {
		defer close(paused)
		c.pause(c.current, 500*time.Millisecond)
	}()
	poll.Until(t, "a stopped process", func() bool { return stateOf(t, c.Pid()) == 'T' })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL()+"/health", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	<-paused
	if state := stateOf(t, c.Pid()); res.StatusCode != http.StatusOK || state == 'T' {
		t.Errorf("status %d, state %c", res.StatusCode, state)
	}
}

// A stop does not wait for the end of a pause.
func TestStopEndsAPause(t *testing.T) {
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	paused := make(chan struct{})
	go func() {
		defer close(paused)
		c.pause(c.current, time.Hour)
	}()
	pid := c.Pid()
	poll.Until(t, "a stopped process", func() bool { return stateOf(t, pid) == 'T' })
	stopClean(t, c)
	<-paused
	c.pause(c.current, time.Hour) // the process has exited
}

// endless starts a request for an answer without an end, and returns a function that
// abandons it.
func endless(t *testing.T, c *Child, answers int64, body string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(WithWork(t.Context(), Work{Answers: answers, Judged: true}))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL()+"/completion", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		res, err := c.HTTPClient().Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		if err == nil {
			t.Error("an endless request ended")
		}
	}()
	return func() { cancel(); <-ended }
}

func busySlots(t *testing.T, c *Child, n int) {
	t.Helper()
	poll.Until(t, fmt.Sprintf("%d busy slots", n), func() bool {
		tasks, _, err := c.tasks(c.current)
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks) == n
	})
}

// The slot of an abandoned request is freed beside the stream of another, by a pause.
// Nothing else pauses the process: neither a stream that notices by itself that its
// caller has left, nor a request with several answers.
func TestAbandonedRequestsFreeTheirSlots(t *testing.T) {
	t.Parallel()
	const stream, whole = `{"prompt":"Once","stream":true}`, `{"prompt":"There"}`
	for name, tt := range map[string]struct {
		stays, leaves string
		answers       int64 // of the one that stays
		paused        bool
	}{
		"whole answer":           {stream, whole, 1, true},
		"stream":                 {stream, stream, 1, false},
		"stream beside several":  {`{"prompt":["Once","Twice"],"stream":true}`, stream, 2, false},
		"whole beside several":   {`{"prompt":["Once","Twice"],"stream":true}`, whole, 2, true},
		"stream beside no other": {"", stream, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log syncbuffer.Buffer
			spec := fakeSpec(t, roleServer, fakellama.Script{Slots: 3, NeverEnds: true, ContextLen: 1 << 20, TokenDelay: 5 * time.Millisecond, KeepsAbandoned: true})
			spec.Log = slog.New(slog.NewTextHandler(&log, nil))
			spec.abandonedAfter, spec.pauseInterval = 200*time.Millisecond, time.Millisecond
			c := mustStart(t, spec)
			if tt.stays != "" {
				defer endless(t, c, tt.answers, tt.stays)()
				busySlots(t, c, int(tt.answers))
			}
			leave := endless(t, c, 1, tt.leaves)
			busySlots(t, c, int(tt.answers)+1)
			leave()
			busySlots(t, c, int(tt.answers))
			poll.Until(t, "the end of the check", func() bool {
				c.current.abandoned.mu.Lock()
				defer c.current.abandoned.mu.Unlock()
				return !c.current.abandoned.checking
			})
			if paused := strings.Contains(log.String(), "is paused"); paused != tt.paused {
				t.Errorf("paused: %v, want %v\n%s", paused, tt.paused, log.String())
			}
			if c.State() != Ready {
				t.Errorf("state %s", c.State())
			}
		})
	}
}
