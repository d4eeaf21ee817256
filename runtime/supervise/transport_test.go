//go:build linux

package supervise

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// readyChild returns a child in state Ready without a real process.
func readyChild(p *process) *Child {
	c := &Child{
		state: Ready, current: p, exits: map[int]exitRecord{}, changed: make(chan struct{}),
		hub: newHub(slog.New(slog.DiscardHandler)),
	}
	c.transport = &retryTransport{child: c}
	return c
}

// completionRequest returns a request that computes.
func completionRequest(ctx context.Context) *http.Request {
	return (&http.Request{Method: http.MethodPost}).WithContext(ctx)
}

func newTestProcess(gen int) *process {
	return &process{run: gen, userTransport: newUserTransport(nil), probeTransport: newTransport(nil), exited: make(chan struct{})}
}

// After an exit was recorded and before the state changes, no request is sent to the
// exited process.
func TestWaitReadySkipsExitedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		exited, next := newTestProcess(1), newTestProcess(2)
		c := readyChild(exited)
		if p, err := c.waitReady(completionRequest(ctx)); p != exited || err != nil {
			t.Fatalf("running: %v, %v", p, err)
		}
		c.recordExit(exited, errors.New("crash"))
		got := make(chan *process, 1)
		go func() {
			p, err := c.waitReady(completionRequest(ctx))
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

// llama-server closes a connection after a stream and does not announce it. A request
// that came next over the same connection would be lost.
func TestRequestsUseAConnectionOnce(t *testing.T) {
	type connection struct{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests, ok := r.Context().Value(connection{}).(*atomic.Int64); !ok || requests.Add(1) > 1 {
			panic(http.ErrAbortHandler) // closes the connection
		}
		_, _ = io.WriteString(w, "answer") // the client checks it
	}))
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connection{}, new(atomic.Int64))
	}
	server.Start()
	defer server.Close()
	p := newTestProcess(1)
	p.userTransport = newUserTransport(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	client := http.Client{Transport: readyChild(p).transport}
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil || string(got) != "answer" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// A drain follows a change of state: every request that was forwarded before counts
// as running by then, and none is forwarded after.
func TestDrainCountsEveryForwardedRequest(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20 // the race would show in any of them
	}
	for range rounds {
		c := readyChild(newTestProcess(1))
		var forwarded atomic.Int64
		var started, ended sync.WaitGroup
		started.Add(4)
		for range 4 {
			ended.Go(func() {
				started.Done()
				for {
					if _, err := c.waitReady(completionRequest(t.Context())); err != nil {
						if !errors.Is(err, ErrStopped) {
							t.Error(err)
						}
						return
					}
					forwarded.Add(1)
				}
			})
		}
		started.Wait()
		c.setState(Stopping, nil, "")
		seen := c.transport.active.Load()
		ended.Wait()
		if got := forwarded.Load(); got != seen {
			t.Fatalf("the drain saw %d requests, %d were forwarded", seen, got)
		}
	}
}

// A request whose process is killed before it answered is retried with the next
// process. A request that received a token is not.
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
		poll.Until(t, "the request to run", func() bool { return c.ActiveRequests() == 1 })
		events, done := c.Subscribe()
		defer done()
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		poll.Until(t, "the retry to run", func() bool { return c.ActiveRequests() == 1 })
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

// A request at which the process crashed is not sent to another one.
func TestCrashingRequestIsNotRetried(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		deadly := fakellama.Fault{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{deadly}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		_, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.Is(err, ErrCrashed) || !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV {
			t.Errorf("got %v, want a crash by this request", err)
		}
		if e := waitForState(t, events, Ready); e.Attempt != 2 || c.ActiveRequests() != 0 {
			t.Errorf("attempt %d with %d requests, want one restart and no retry", e.Attempt, c.ActiveRequests())
		}
		stopClean(t, c)
	})
}

// If several requests are in flight at a crash, none is retried and none is named as
// the cause.
func TestCrashWithSeveralRequestsNamesNoCause(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond, Slots: 2})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() { _, err := readAll(t.Context(), c); errs <- err }()
		}
		poll.Until(t, "both requests to run", func() bool { return c.ActiveRequests() == cap(errs) })
		if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		for range cap(errs) {
			var exit *ExitError
			if err := <-errs; !errors.As(err, &exit) || errors.Is(err, ErrCrashed) {
				t.Errorf("got %v, want the exit and no named cause", err)
			}
		}
		stopClean(t, c)
	})
}

// No number of crashes by requests ends a child whose policy ignores them, and each
// restart follows within maxRequestBackoff.
func TestCrashingRequestsEndNoService(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		deadly := fakellama.Fault{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGABRT)}
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{deadly}})
		spec.Restart = RestartOnFailure()
		spec.Restart.MinBackoff, spec.Restart.MaxBackoff, spec.Restart.MaxFailures = time.Millisecond, time.Millisecond, 2
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		for n := range 3 * spec.Restart.MaxFailures {
			if _, err := readAll(t.Context(), c); !errors.Is(err, ErrCrashed) {
				t.Fatalf("request %d: %v", n, err)
			}
			waitForState(t, events, Ready)
		}
		// A process without any request counts.
		for range spec.Restart.MaxFailures {
			if c.State() == Ready {
				if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case e := <-events:
				for e.To != Ready && e.To != Failed {
					e = <-events
				}
			case <-time.After(30 * time.Second): // bounds a failure
				t.Fatal("no event")
			}
		}
		if !errors.Is(c.Err(), ErrCrashLoop) {
			t.Errorf("crashes without requests: %v, want a crash loop", c.Err())
		}
		stopClean(t, c)
	})
}

// Only an exit that a request may have caused makes it a suspect.
func TestSuspectExits(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"segmentation fault": {&ExitError{Signal: syscall.SIGSEGV}, true},
		"assertion":          {&ExitError{Signal: syscall.SIGABRT}, true},
		"status":             {&ExitError{Code: 1}, true},
		"hang":               {&HangError{Kind: ErrStalled}, true},
		"out of memory":      {&ExitError{Signal: syscall.SIGKILL, Kind: ErrHostMemory}, true},
		"killed":             {&ExitError{Signal: syscall.SIGKILL}, false},
		"terminated":         {&ExitError{Signal: syscall.SIGTERM}, false},
		"stopped":            {ErrStopped, false},
	} {
		if got := (exitRecord{err: tt.err}).isSuspect(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
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
		first, err := c.waitReady(completionRequest(t.Context()))
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
		if _, exited := c.exitCause(t.Context(), first); !exited {
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
