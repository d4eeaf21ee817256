package activity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// end ends a request well.
func end(q *Request) { q.End(time.Now(), func(r *Record) { r.Outcome, r.Status = OK, 200 }) }

func seqs(list []Record) []uint64 {
	var out []uint64
	for _, r := range list {
		out = append(out, r.Seq)
	}
	return out
}

func TestLogKeepsTheLastRequests(t *testing.T) {
	t.Parallel()
	l := NewLog(Options{Size: 3})
	var running []*Request
	for range 6 {
		running = append(running, l.Begin(Record{Time: time.Now()}))
	}
	for _, q := range running[:5] {
		end(q)
	}
	s := l.Snapshot(nil)
	if got := seqs(s.Recent); !slices.Equal(got, []uint64{5, 4, 3}) {
		t.Errorf("recent %v, want 5 4 3", got)
	}
	if got := seqs(s.Running); !slices.Equal(got, []uint64{6}) || s.Running[0].Stage != Waiting {
		t.Errorf("running %v, want 6, which waits", s.Running)
	}
	if got := seqs(l.Snapshot(func(r *Record) bool { return r.Seq == 4 }).Recent); !slices.Equal(got, []uint64{4}) {
		t.Errorf("filtered %v", got)
	}
}

func TestTokensMeasureARequest(t *testing.T) {
	t.Parallel()
	l := NewLog(Options{})
	start := time.Now().Add(-10 * time.Second)
	q := l.Begin(Record{Time: start})
	q.Tokens(1, start.Add(2*time.Second))
	q.Tokens(8, start.Add(4*time.Second))
	if r := l.Snapshot(nil).Running[0]; r.Stage != Generating || r.GeneratedTokens != 9 || r.FirstTokenSeconds != 2 || r.TokensPerSecond != 4 {
		t.Errorf("while it runs: %+v", r)
	}
	r := q.End(start.Add(5*time.Second), func(r *Record) { r.GeneratedTokens, r.PromptTokens, r.CachedTokens = 12, 100, 40 })
	if r.Seconds != 5 || r.GeneratedTokens != 12 || r.Stage != Done {
		t.Errorf("at its end: %+v", r)
	}
	if prompt, generated := l.Tokens(); prompt != 60 || generated != 12 {
		t.Errorf("%d and %d tokens in all, want 60 and 12", prompt, generated)
	}
	var none *Request
	none.Tokens(1, start)
	none.Update(func(*Record) { t.Error("a request that is not there has a record") })
}

func TestTokensAllocateNothing(t *testing.T) {
	l := NewLog(Options{})
	q := l.Begin(Record{Time: time.Now()})
	sub := l.Subscribe()
	defer sub.Close()
	q.Tokens(1, time.Now())
	if n := testing.AllocsPerRun(100, func() { q.Tokens(1, time.Now()) }); n != 0 {
		t.Errorf("%v allocations for each token", n)
	}
}

func TestSubscriptionMissesNoEnd(t *testing.T) {
	t.Parallel()
	l := NewLog(Options{Size: 4})
	s := l.Subscribe()
	defer s.Close()
	a := l.Begin(Record{Time: time.Now(), Model: "a"})
	a.Update(func(r *Record) { r.Stage = Prompt })
	<-s.Changed()
	if got := s.Take(); len(got) != 1 || got[0].Stage != Prompt {
		t.Errorf("one request has changed, not %+v", got)
	}
	a.Tokens(1, time.Now())
	a.Tokens(1, time.Now())
	if got := s.Take(); len(got) != 1 || got[0].GeneratedTokens != 2 {
		t.Errorf("two tokens more: %+v", got)
	}
	if got := s.Take(); len(got) != 0 {
		t.Errorf("nothing has changed: %+v", got)
	}
	end(a)
	if got := s.Take(); len(got) != 1 || got[0].Outcome != OK {
		t.Errorf("the request has ended: %+v", got)
	}
}

// TestSlowSubscriberIsBounded ends many requests beside a subscriber that takes none
// of their changes.
func TestSlowSubscriberIsBounded(t *testing.T) {
	t.Parallel()
	l := NewLog(Options{Size: 4})
	s := l.Subscribe()
	defer s.Close()
	for range 1000 {
		end(l.Begin(Record{Time: time.Now()}))
	}
	if len(s.changed) > 20 {
		t.Errorf("%d changes are kept", len(s.changed))
	}
	if got := seqs(s.Take()); !slices.Equal(got, []uint64{997, 998, 999, 1000}) {
		t.Errorf("changes of %v", got)
	}
}

func TestCaptureIsBounded(t *testing.T) {
	t.Parallel()
	none := NewLog(Options{})
	none.Keep("id", []byte("secret"), nil, false)
	if got := none.Captured(); len(got) != 0 {
		t.Errorf("captured without being asked: %v", got)
	}
	l := NewLog(Options{Capture: 2})
	long := []byte(strings.Repeat("€", MaxCapture))
	for i := range 5 {
		l.Keep(fmt.Sprint(i), long, []byte("short"), false)
	}
	got := l.Captured()
	if len(got) != 2 || got[0].ID != "4" || got[1].ID != "3" {
		t.Fatalf("captured %d bodies", len(got))
	}
	if c := got[0]; !c.Truncated || len(c.Request) > MaxCapture || strings.ContainsRune(c.Request, '\uFFFD') || c.Response != "short" {
		t.Errorf("%d bytes of the request, truncated %v", len(c.Request), c.Truncated)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"two\nlines\tand \x1b[31mred": "two lines and [31mred",
		"\xff":                        "\uFFFD",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := Clean(strings.Repeat("€", 200)); len(got) > maxText || !strings.HasSuffix(got, "€…") {
		t.Errorf("a long text has %d bytes and ends with %q", len(got), got[len(got)-6:])
	}
}

func TestSampler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(Options{})
		used := uint64(0)
		cards := func() []Card {
			used += 100
			return []Card{{PCI: "0000:03:00.0", Total: 1000, Used: used, Ours: 60, Known: true, Sensors: gpu.Sensors{PowerWatts: 5}}}
		}
		s := NewSampler(l, cards, 5*time.Second, 3)
		if _, _, ok := s.Latest(); ok {
			t.Error("there is a sample before the first one")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { s.Run(ctx) })
		synctest.Wait()
		q := l.Begin(Record{Time: time.Now()})
		q.Tokens(50, time.Now())
		time.Sleep(5 * time.Second)
		synctest.Wait()
		last, _, ok := s.Latest()
		if !ok || last.GeneratedPerSecond != 10 || last.Running != 1 || last.Cards[0].Others() != 140 {
			t.Errorf("the sample is %+v", last)
		}
		time.Sleep(50 * time.Second)
		cancel()
		done.Wait()
		if h := s.History(); len(h) != 3 || !h[0].Time.Before(h[2].Time) || h[2].GeneratedPerSecond != 0 {
			t.Errorf("%d samples are kept", len(h))
		}
	})
}
