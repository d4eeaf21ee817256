//go:build linux

package supervise

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// loopPath is the path at which a server in roleLoops computes without end, also when
// the client has left, as llama-server does in a chat template that loops.
const loopPath = "/apply-template"

// serveLoops serves until it is killed.
func serveLoops() error {
	return serveFake(func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if r.URL.Path == loopPath {
			_, _ = io.Copy(io.Discard, r.Body)
			select {}
		}
		server.ServeHTTP(w, r)
	})
}

// A request that computes outside the slots without end is found beside a stream, also
// when its caller has left. Alone it ends the process without a delay.
func TestRequestOutsideTheSlotsIsAStall(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stream, leaves, noSlot bool
		grace                  time.Duration
	}{
		"its caller waits":                {stream: true, grace: 100 * time.Millisecond},
		"its caller has left":             {stream: true, leaves: true, grace: 100 * time.Millisecond},
		"it needs no slot":                {stream: true, leaves: true, noSlot: true, grace: 100 * time.Millisecond},
		"its caller has left it alone":    {leaves: true, grace: time.Hour},
		"its caller waits, nobody else":   {grace: time.Hour},
		"it needs no slot, left it alone": {leaves: true, noSlot: true, grace: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := fakeSpec(t, roleLoops, fakellama.Script{Slots: 2, NeverEnds: true, ContextLen: 1 << 20, TokenDelay: 5 * time.Millisecond})
			spec.StallTimeout, spec.StallGrace = 5*time.Second, tt.grace
			c := mustStart(t, spec)
			if tt.stream {
				_ = endless(t, c, 1, `{"prompt":"Once","stream":true}`)
				busySlots(t, c, 1)
			}
			var hung atomic.Int32
			ctx, leave := context.WithCancel(WithWork(t.Context(), Work{Judged: true, NoSlot: tt.noSlot, Hung: func() { hung.Add(1) }}))
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL()+loopPath, strings.NewReader(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			stuck := make(chan error, 1)
			go func() {
				res, err := c.HTTPClient().Do(req)
				if err == nil {
					_ = res.Body.Close()
				}
				stuck <- err
			}()
			if tt.leaves {
				poll.Until(t, "the request to be sent", func() bool { return isSent(&c.current.unanswered) })
				leave()
			}
			err = <-stuck
			<-c.Done()
			var hang *HangError
			if !errors.As(c.Err(), &hang) || !hang.Unanswered || !errors.Is(hang, ErrStalled) || !strings.Contains(hang.Remedy, "chat template") {
				t.Errorf("the process ended with %v", c.Err())
			}
			if !tt.leaves && !errors.Is(err, ErrStalled) || tt.leaves && !errors.Is(err, context.Canceled) {
				t.Errorf("the request ended with %v", err)
			}
			if got, want := hung.Load() == 1, tt.leaves; got != want {
				t.Errorf("reported as hung: %v, want %v", got, want)
			}
		})
	}
}

// isSent reports whether a request that reports a hang was sent.
func isSent(u *unanswered) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.requests {
		if p.work.Hung != nil && !p.sent.IsZero() {
			return true
		}
	}
	return false
}

// A request whose caller has left is forgotten as soon as the server closes its
// connection.
func TestAbandonedRequestIsForgotten(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleServer, fakellama.Script{NeverEnds: true, ContextLen: 1 << 20, TokenDelay: time.Millisecond})
	c := mustStart(t, spec)
	leave := endless(t, c, 1, `{"prompt":"Once"}`)
	busySlots(t, c, 1)
	leave()
	busySlots(t, c, 0)
	poll.Until(t, "the end of the connection", func() bool { return !c.current.unanswered.any() })
}

// Only what could compute in a slot, and does not, is outside.
func TestOutside(t *testing.T) {
	const limit = 8 * time.Second
	start := time.Now()
	busy := func(tasks ...int64) []slotState {
		slots := make([]slotState, 4)
		for i, task := range tasks {
			slots[i] = slotState{ID: i, Task: task, Processing: true}
		}
		return slots
	}
	one, two := Work{Answers: 1, Judged: true}, Work{Answers: 2, Judged: true}
	for name, tt := range map[string]struct {
		work    []Work
		slots   func(second int) []slotState
		streams int
		loaded  time.Duration
		want    int
	}{
		"in a slot":                           {[]Work{one}, func(int) []slotState { return busy(7) }, 0, 0, 0},
		"in a slot after a while":             {[]Work{one}, func(s int) []slotState { return busy([]int64{7}[:min(1, s/3)]...) }, 0, 0, 0},
		"outside":                             {[]Work{one}, func(int) []slotState { return busy() }, 0, 0, 1},
		"outside, beside an old stream":       {[]Work{one}, func(int) []slotState { return busy(7) }, 1, 0, 1},
		"in a slot, beside an old stream":     {[]Work{one}, func(int) []slotState { return busy(7, 8) }, 1, 0, 0},
		"outside, beside short requests":      {[]Work{one}, func(s int) []slotState { return busy(int64(s), int64(100+s)) }, 0, 0, 1},
		"waits for a slot":                    {[]Work{one}, func(int) []slotState { return busy(1, 2, 3, 4) }, 0, 0, 0},
		"two choices wait for two slots":      {[]Work{two}, func(int) []slotState { return busy(1, 2, 3) }, 0, 0, 0},
		"two choices, outside":                {[]Work{two}, func(int) []slotState { return busy() }, 0, 0, 1},
		"no slot needed, none idle":           {[]Work{{Answers: 1, Judged: true, NoSlot: true}}, func(s int) []slotState { return busy(int64(s), int64(s+100), int64(s+200), int64(s+300)) }, 0, 0, 1},
		"several prompts":                     {[]Work{{Answers: 2}}, func(s int) []slotState { return busy(int64(s)) }, 0, 0, 0},
		"one of two outside":                  {[]Work{one, one}, func(int) []slotState { return busy(7) }, 0, 0, 1},
		"a server that loads its model again": {[]Work{one}, func(int) []slotState { return busy() }, 0, 5 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := unanswered{requests: map[*http.Request]*pending{}}
			for _, w := range tt.work {
				u.requests[&http.Request{}] = &pending{work: w, sent: start, queued: start}
			}
			var loaded time.Time
			if tt.loaded != 0 {
				loaded = start.Add(tt.loaded)
			}
			var h slotHistory
			for second := 1; second < 10; second++ {
				now := start.Add(time.Duration(second) * time.Second)
				want := tt.want
				if second < 8 {
					want = 0
				}
				if got := h.outside(&u, tt.slots(second), tt.streams, loaded, now, limit); got != want {
					t.Errorf("after %d s: %d outside, want %d", second, got, want)
				}
			}
		})
	}
	// Time in which nobody looked does not count.
	u := unanswered{requests: map[*http.Request]*pending{{}: {work: one, sent: start, queued: start}}}
	u.postpone(time.Hour)
	if got := u.due(4, start.Add(time.Hour), start.Add(time.Hour-limit)); got != 0 {
		t.Errorf("%d are due after an hour without a check", got)
	}
}
