package supervise

import (
	"errors"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// read asks a child as something that watches it does, and returns the error.
func read(t *testing.T, c *Child, method, path string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.BaseURL()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.HTTPClient().Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	return err
}

// A child that crashes by itself ends in ErrCrashLoop, whatever watches it meanwhile.
func TestReadsAreNoCauseOfACrash(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.Restart = RestartOnFailure()
		spec.Restart.MinBackoff, spec.Restart.MaxBackoff, spec.Restart.MaxFailures = time.Millisecond, time.Millisecond, 2
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		for n := range spec.Restart.MaxFailures {
			if n > 0 {
				waitForState(t, events, Ready)
			}
			for _, path := range []string{"/metrics", "/health", "/slots", "/props", "/v1/models", "/lora-adapters"} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					if err := read(t, c, method, path); err != nil {
						t.Fatalf("%s %s: %v", method, path, err)
					}
				}
			}
			if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil {
				t.Fatal(err)
			}
		}
		waitForState(t, events, Failed)
		if !errors.Is(c.Err(), ErrCrashLoop) {
			t.Errorf("got %v, want a crash loop", c.Err())
		}
		stopClean(t, c)
	})
}

// A request at which the process crashes is named as the cause, whatever reads run
// beside it; a read is not.
func TestReadsHideNoCrashingRequest(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleLoops, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		asked, looked := make(chan error, 1), make(chan error, 1)
		go func() { _, err := readAll(t.Context(), c); asked <- err }()
		poll.Until(t, "the request to be sent", func() bool { return c.ActiveRequests() == 1 })
		go func() { looked <- read(t, c, http.MethodGet, loopPath) }()
		poll.Until(t, "both requests to run", func() bool { return c.ActiveRequests() == 2 })
		if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		var exit *ExitError
		if err := <-asked; !errors.Is(err, ErrCrashed) || !errors.As(err, &exit) {
			t.Errorf("the request: %v, want a crash by it", err)
		}
		if err := <-looked; !errors.As(err, &exit) || errors.Is(err, ErrCrashed) {
			t.Errorf("the read: %v, want the exit and no named cause", err)
		}
		stopClean(t, c)
	})
}

// Requests that need no slot do not hide an abandoned one that keeps its slot.
func TestAnswersOfRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		work   Work
		want   int64
	}{
		"completion":       {http.MethodPost, Work{}, 1},
		"several choices":  {http.MethodPost, Work{Answers: 3}, 3},
		"tokens of a text": {http.MethodPost, Work{NoSlot: true}, 0},
		"metrics":          {http.MethodGet, Work{}, 0},
		"health":           {http.MethodHead, Work{}, 0},
	} {
		var l load
		req := (&http.Request{Method: tt.method}).WithContext(WithWork(t.Context(), tt.work))
		l.begin(req)
		if got := l.answers.Load(); got != tt.want {
			t.Errorf("%s: %d answers, want %d", name, got, tt.want)
		}
		if l.end(req); l.answers.Load() != 0 || l.inFlight.Load() != 0 || l.running.Load() != 0 {
			t.Errorf("%s: %d answers, %d and %d requests are left", name, l.answers.Load(), l.inFlight.Load(), l.running.Load())
		}
	}
}

// A request that crashes the process and has written the line of a lasting failure into
// its log does not end a service.
func TestLogOfARequestEndsNoService(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		deadly := fakellama.Fault{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGABRT)}
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{deadly}})
		spec.Argv = []string{"sh", "-c", `echo "error parsing grammar: ROCm error: invalid device function" >&2; exec "$0" "$@"`, os.Args[0]}
		spec.Restart = RestartOnFailure()
		spec.Restart.MinBackoff = time.Millisecond
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		for range 2 {
			if _, err := readAll(t.Context(), c); !errors.Is(err, ErrCrashed) || !IsPermanent(err) {
				t.Fatalf("got %v, want a crash that looks lasting", err)
			}
			waitForState(t, events, Ready)
		}
		stopClean(t, c)
	})
}
