//go:build linux

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// wedgeKinds returns the ways in which decoding stops: /slots goes on answering the
// same, or does not answer.
func wedgeKinds() []fakellama.Kind { return []fakellama.Kind{fakellama.KindStall, fakellama.KindWedge} }

// Fault 20: ready, then wedged with the socket open.
func TestFault20_WedgedDecode(t *testing.T) {
	for _, kind := range wedgeKinds() {
		t.Run(string(kind), func(t *testing.T) {
			torture.Rounds(t, func(t *testing.T) { testWedgedDecode(t, kind) })
		})
	}
}

func testWedgedDecode(t *testing.T, kind fakellama.Kind) {
	spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: kind, AfterTokens: 3}}})
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
	if e := waitForState(t, events, Stalled); !errors.Is(e.Cause, ErrStalled) {
		t.Errorf("the event's cause is %v", e.Cause)
	}
	<-c.Done()
	if c.State() != Failed || !errors.Is(c.Err(), ErrStalled) {
		t.Errorf("state %s, error %v", c.State(), c.Err())
	}
}

// A slow stream that produces tokens is no stall, and neither is a long pause without
// requests.
func TestSlowTokensAreNoStall(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleServer, fakellama.Script{Reply: strings.Repeat("word ", 16), TokenDelay: 50 * time.Millisecond, PromptDelay: 50 * time.Millisecond})
	spec.StallTimeout, spec.StallGrace = 2*time.Second, time.Millisecond
	c := mustStart(t, spec)
	time.Sleep(spec.StallTimeout * 3 / 2)
	if _, err := readAll(t.Context(), c); err != nil || c.State() != Ready {
		t.Fatalf("state %s, error %v", c.State(), err)
	}
}

// A prompt takes longer than StallTimeout. On the CPU, a server that decodes is not
// stalled; one that only waits is, and so is one whose sampler computes, which blocks
// /slots, and one that computes beyond any prompt. With a GPU, CPU time proves
// nothing.
func TestCPUTimeIsProgressOnlyWithoutGPU(t *testing.T) {
	t.Parallel()
	const stall, prompt = 3 * time.Second, 8 * time.Second
	for name, c := range map[string]struct {
		role        string
		onCPU, busy bool
		stall       time.Duration
		want        error
	}{
		"decoding on the CPU":      {roleServer, true, true, stall, nil},
		"waiting on the CPU":       {roleServer, true, false, stall, ErrStalled},
		"computing beside the GPU": {roleServer, false, true, stall, ErrStalled},
		"sampling on the CPU":      {roleHideSlots, true, true, stall, ErrStalled},
		"spinning on the CPU":      {roleServer, true, true, prompt / (3 * maxComputing), ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := fakeSpec(t, c.role, fakellama.Script{Reply: "done", PromptDelay: prompt, PromptBusy: c.busy})
			spec.Env = append(spec.Env, blockSlotsName+"=true")
			spec.CPUOnly, spec.StallTimeout, spec.StallGrace = c.onCPU, c.stall, 100*time.Millisecond
			child := mustStart(t, spec)
			events, done := child.Subscribe()
			defer done()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // bounds a failure
			defer cancel()
			if _, err := readAll(ctx, child); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			select {
			case e := <-events:
				t.Errorf("%s because of %v: %s", e.To, e.Cause, e.Note)
			default:
			}
		})
	}
}

// A wedged server is detected although every client gives up sooner than
// StallTimeout.
func TestStallIsDetectedWhenClientsGiveUp(t *testing.T) {
	t.Parallel()
	for _, kind := range wedgeKinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			testStallWithGivingUpClients(t, kind)
		})
	}
}

func testStallWithGivingUpClients(t *testing.T, kind fakellama.Kind) {
	spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: kind, AfterTokens: 1}}})
	// A check of /slots lasts a second at most. The pause is longer, so that the
	// watcher sees it, and both together are shorter than StallTimeout.
	const patience, pause = time.Second, 3 * time.Second / 2
	spec.StallTimeout, spec.StallGrace = 3*time.Second, 100*time.Millisecond
	c := mustStart(t, spec)
	for range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := readAll(ctx, c)
		cancel()
		if err == nil {
			t.Fatal("a wedged server answered")
		}
		select {
		case <-c.Done():
			if !errors.Is(c.Err(), ErrStalled) {
				t.Errorf("it ended with %v", c.Err())
			}
			return
		case <-time.After(pause): // nothing runs
		}
	}
	t.Error("the stall was not detected")
}

// A request that is in no slot and has no response is stuck in a thread of the HTTP
// server, as in a chat template that loops. The other requests of the process are
// answered meanwhile and do not hide it.
func TestUnansweredRequestIsAStall(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindNoAnswer, Request: 1}}})
	spec.CPUOnly, spec.StallTimeout, spec.StallGrace = true, time.Second, 100*time.Millisecond
	c := mustStart(t, spec)
	events, done := c.Subscribe()
	defer done()
	stuck := make(chan error, 1)
	go func() {
		_, err := readAll(t.Context(), c)
		stuck <- err
	}()
	poll.Until(t, "the first request", func() bool { return c.ActiveRequests() == 1 })
	for c.State() == Ready {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.BaseURL()+"/tokenize", strings.NewReader(`{"content":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		if res, err := c.HTTPClient().Do(req); err == nil { // else the process was killed meanwhile
			_ = res.Body.Close()
		}
	}
	err := <-stuck
	var hang *HangError
	if !errors.As(err, &hang) || !errors.Is(err, ErrStalled) || !strings.Contains(hang.Remedy, "chat template") || !IsSuspect(err) {
		t.Errorf("got %v, want a HangError that names the chat template", err)
	}
	if e := waitForState(t, events, Stalled); !strings.Contains(e.Note, "no slot has computed") {
		t.Errorf("the event says %q", e.Note)
	}
}

// A response that its caller reads slowly is no stall, although no slot computes.
func TestUnreadResponseIsNoStall(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleServer, fakellama.Script{Reply: "done"})
	spec.StallTimeout, spec.StallGrace = 200*time.Millisecond, time.Millisecond
	c := mustStart(t, spec)
	events, done := c.Subscribe()
	defer done()
	res, err := postCompletion(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		t.Errorf("%s because of %v: %s", e.To, e.Cause, e.Note)
	case <-time.After(4 * spec.StallTimeout):
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
}

// The time by which a check comes late does not count.
func TestLateness(t *testing.T) {
	for gap, want := range map[time.Duration]time.Duration{
		0: 0, time.Second: 0, 2 * time.Second: 0, 5 * time.Second: 3 * time.Second, time.Hour: time.Hour - 2*time.Second,
	} {
		if got := lateness(gap, time.Second); got != want {
			t.Errorf("%s after the last check: %s late, want %s", gap, got, want)
		}
	}
}

// A body that is sent slowly is no stall.
func TestUnansweredCountsFromTheEndOfTheBody(t *testing.T) {
	var u unanswered
	req := &http.Request{}
	now := time.Now()
	sent := u.add(req)
	if got := u.oldest(now); !got.Equal(now) {
		t.Errorf("while it is sent: %v before now", now.Sub(got))
	}
	sent()
	if got := u.oldest(now.Add(time.Hour)); got.Before(now) || !got.Before(now.Add(time.Hour)) {
		t.Errorf("when it was sent: %v after the start", got.Sub(now))
	}
	u.remove(req)
	sent() // of a response that came before the body's end
	if got := u.oldest(now); !got.Equal(now) || len(u.requests) != 0 {
		t.Errorf("after its response: %v before now, %d entries", now.Sub(got), len(u.requests))
	}
}

// childWithoutProcess returns a child without a program, as the loop sees it.
func childWithoutProcess() *Child {
	return &Child{
		spec: Spec{Log: discardLog(), StallGrace: time.Hour}, hub: newHub(discardLog()),
		changed: make(chan struct{}), kill: make(chan struct{}),
	}
}

// When tokens are produced again, the timer that would kill the process stops.
func TestKillTimerStopsWhenTokensMove(t *testing.T) {
	c, s := childWithoutProcess(), serving{readySince: time.Now()}
	c.handleObservation(&s, observation{stalled: true, idle: time.Minute})
	if s.killTimer == nil || s.stalledSince.IsZero() || c.State() != Stalled {
		t.Fatalf("a stall: %+v, state %s", s, c.State())
	}
	c.handleObservation(&s, observation{})
	if s.killTimer != nil || !s.stalledSince.IsZero() || c.State() != Ready {
		t.Errorf("tokens move again: %+v, state %s", s, c.State())
	}
}

// hideSlotsName is the environment variable with the path of a file. Once that file
// exists, a server in roleHideSlots does not offer /slots.
const hideSlotsName = "SUPERVISE_TEST_HIDE"

// blockSlotsName is the environment variable that makes a server in roleHideSlots
// leave /slots unanswered, as llama-server does while its sampler computes.
const blockSlotsName = "SUPERVISE_TEST_BLOCK"

// serveHidingSlots serves until it is killed.
func serveHidingSlots() error {
	return serveFake(func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if r.URL.Path == "/slots" {
			if os.Getenv(blockSlotsName) != "" {
				<-r.Context().Done()
				return
			}
			if _, err := os.Stat(os.Getenv(hideSlotsName)); err == nil {
				w.WriteHeader(http.StatusNotImplemented)
				return
			}
		}
		server.ServeHTTP(w, r)
	})
}

// serveFake serves the fake llama-server behind a handler until it is killed.
func serveFake(handle func(w http.ResponseWriter, r *http.Request, server http.Handler)) error {
	var script fakellama.Script
	if err := json.Unmarshal([]byte(os.Getenv(fakellama.EnvScript)), &script); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", os.Args[2])
	if err != nil {
		return err
	}
	server := fakellama.New(script)
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, server) }))
}

// A stalled server that stops offering /slots becomes ready again, since nothing
// could ever end the stall.
func TestStallEndsWhenSlotsAreHidden(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "hide")
		spec := fakeSpec(t, roleHideSlots, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStall, AfterTokens: 1}}})
		spec.Env = append(spec.Env, hideSlotsName+"="+file)
		spec.StallTimeout, spec.StallGrace = 200*time.Millisecond, -1
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		res, err := postCompletion(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Stalled)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		cancel()
		_ = res.Body.Close()
	})
}

// The same while the kill timer runs: it stops.
func TestKillTimerStopsWhenSlotsAreHidden(t *testing.T) {
	for _, stalled := range []bool{true, false} {
		c := &Child{spec: Spec{StallGrace: time.Hour, Log: slog.New(slog.DiscardHandler)}, state: Ready, changed: make(chan struct{})}
		c.hub = newHub(c.spec.Log)
		events, done := c.Subscribe()
		s := serving{readySince: time.Now()}
		if stalled {
			c.handleObservation(&s, observation{stalled: true, idle: time.Second})
		}
		if (s.killTimer != nil) != stalled || s.stalledSince.IsZero() == stalled || (c.State() == Stalled) != stalled {
			t.Fatalf("stalled %v: %+v, state %s", stalled, s, c.State())
		}
		c.handleObservation(&s, observation{err: errNoSlots})
		if s.killTimer != nil || !s.stalledSince.IsZero() || c.State() != Ready {
			t.Errorf("stalled %v: %+v, state %s; want Ready and no kill timer", stalled, s, c.State())
		}
		done()
		var states []State
		for e := range events {
			states = append(states, e.To)
		}
		if want := map[bool]int{true: 2, false: 0}[stalled]; len(states) != want {
			t.Errorf("stalled %v: %d changes, %v; want %d", stalled, len(states), states, want)
		}
	}
}
