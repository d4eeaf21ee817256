//go:build linux

package supervise

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// readyChild returns a child in state Ready without a real process.
func readyChild(p *process) *Child {
	c := &Child{
		state: Ready, current: p, exits: map[int]error{}, changed: make(chan struct{}),
		hub: newHub(slog.New(slog.DiscardHandler)),
	}
	c.transport = &retryTransport{child: c}
	return c
}

func newTestProcess(gen int) *process {
	return &process{run: gen, userTransport: newTransport(nil), probeTransport: newTransport(nil), exited: make(chan struct{})}
}

// After an exit was recorded and before the state changes, no request is sent to the
// exited process.
func TestWaitReadySkipsExitedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		exited, next := newTestProcess(1), newTestProcess(2)
		c := readyChild(exited)
		if p, err := c.waitReady(ctx); p != exited || err != nil {
			t.Fatalf("running: %v, %v", p, err)
		}
		c.recordExit(exited, errors.New("crash"))
		got := make(chan *process, 1)
		go func() {
			p, err := c.waitReady(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- p
		}()
		synctest.Wait()
		select {
		case p := <-got:
			t.Fatalf("run %d was returned, which has exited", p.run)
		default:
		}
		c.setState(Starting, nil, "")
		synctest.Wait()
		c.mu.Lock()
		c.current = next
		c.mu.Unlock()
		c.setState(Ready, nil, "")
		if p := <-got; p != next {
			t.Errorf("got %v", p)
		}
	})
}

// A drain follows a change of state: every request that was forwarded before counts
// as running by then, and none is forwarded after.
func TestDrainCountsEveryForwardedRequest(t *testing.T) {
	for range 200 {
		c := readyChild(newTestProcess(1))
		var forwarded atomic.Int64
		var begun, ended sync.WaitGroup
		begun.Add(4)
		for range 4 {
			ended.Go(func() {
				begun.Done()
				for {
					if _, err := c.waitReady(t.Context()); err != nil {
						if !errors.Is(err, ErrStopped) {
							t.Error(err)
						}
						return
					}
					forwarded.Add(1)
				}
			})
		}
		begun.Wait()
		c.setState(Stopping, nil, "")
		seen := c.transport.active.Load()
		ended.Wait()
		if got := forwarded.Load(); got != seen {
			t.Fatalf("the drain saw %d requests, %d were forwarded", seen, got)
		}
	}
}

// A request whose process exits before it answered is retried with the next process.
// A request that received a token is not.
func TestRetriesOnlyWithoutTokens(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindNoAnswer, Request: 1}}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		type result struct {
			text string
			err  error
		}
		results := make(chan result, 1)
		go func() {
			// Each process leaves its first request unanswered.
			text, err := readAll(t.Context(), c)
			results <- result{text, err}
		}()
		waitFor(t, "the request to run", func() bool { return c.ActiveRequests() == 1 })
		events, done := c.Subscribe()
		defer done()
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		waitFor(t, "the retry to run", func() bool { return c.ActiveRequests() == 1 })
		stopClean(t, c)
		if r := <-results; r.err == nil {
			t.Errorf("got %d bytes from servers that never answer", len(r.text))
		}

		spec = fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 1, Signal: int(syscall.SIGSEGV)}}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c = mustStart(t, spec)
		text, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.As(err, &exit) || strings.Count(text, "data: ") != 1 {
			t.Errorf("got %d events and %v, want one event and the exit", strings.Count(text, "data: "), err)
		}
	})
}

// A request during which two processes exited is not sent to a third: if it is the
// cause, it would end the service for everybody.
func TestCrashingRequestIsNotRetriedTwice(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		deadly := fakellama.Fault{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{deadly}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		_, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.Is(err, ErrCrashedTwice) || !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV {
			t.Errorf("got %v, want the second exit", err)
		}
		waitForState(t, events, Ready)
		waitForState(t, events, Ready)
		stopClean(t, c)
	})
}

// A request that was forwarded to one process never reaches the next, which still
// loads its model and would reject it.
func TestRequestNeverReachesNextProcess(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{LoadTime: 400 * time.Millisecond})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		events, unsubscribe := c.Subscribe()
		defer unsubscribe()
		first, err := c.waitReady(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(first.pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Loading) // the next process answers with 503
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL()+"/props", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.transport.send(first, req, false)
		c.transport.active.Add(-1)
		if err == nil {
			t.Errorf("an exited process answered %s", res.Status)
			_ = res.Body.Close()
		}
		if exit := c.exitCause(t.Context(), first); exit == nil {
			t.Error("its exit is not recorded")
		}
		// Through the client it waits, and is answered.
		res, err = c.HTTPClient().Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("the waiting request: %v, %v", res, err)
		}
		_ = res.Body.Close()
	})
}
