package scheduler

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.lthn.ai/core/go-rocm/testing/cases"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		// `mage torture` draws 100 000 schedules.
		if err := flag.Set("rapid.checks", fmt.Sprint(cases.Of(1000, 2000, 4000))); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// run draws a schedule of events, and returns the first rule that is broken.
func run(d draw, without rule) error {
	w := newWorld(d, without)
	w.decide()
	for range 10 + d("steps", 50) {
		w.event()
		w.decide()
		w.advance(time.Duration(d("pass", 4)) * time.Second)
		if w.fault != nil {
			return w.fault
		}
	}
	// Nothing more arrives, or only for a model that is loaded already: everybody
	// gets an answer in time.
	busy := d("busy", 4) == 0
	for end := w.now.Add(w.longestWait() + 2*slack); w.now.Before(end) && w.fault == nil && (busy || len(w.s.Queue) > 0); {
		if busy && w.now.Second()%4 == 0 {
			w.arriveSame()
		}
		w.advance(time.Second)
	}
	return w.fault
}

// event lets one thing happen.
func (w *world) event() {
	switch w.draw("event", 16) {
	case 0, 1, 2, 3, 4, 5:
		w.arrive()
	case 6:
		w.leave()
	case 7:
		p := w.s.Places[w.draw("place", len(w.s.Places))]
		w.foreign[p.ID] = p.Total / 16 * uint64(w.draw("foreign", 6))
	case 8:
		if w.draw("reload", 3) == 0 {
			w.configure()
		}
	case 9:
		w.crash()
	case 10:
		w.askUnload()
	case 11:
		w.restart()
	default:
		w.arriveSame()
	}
}

func (w *world) arrive() {
	names := slices.Sorted(maps.Keys(w.s.Names))
	w.request(names[w.draw("name", len(names))])
}

// arriveSame keeps one model busy.
func (w *world) arriveSame() {
	for _, key := range slices.Sorted(maps.Keys(w.children)) {
		for _, name := range slices.Sorted(maps.Keys(w.s.Names)) {
			if w.s.Names[name] == key {
				w.request(name)
				return
			}
		}
	}
}

func (w *world) request(name string) {
	w.nextID++
	r := &Request{ID: w.nextID, Name: name, Client: fmt.Sprint("client", w.draw("client", 6)/3), Priority: w.draw("priority", 3), Arrived: w.now}
	if w.draw("impatient", 6) == 0 {
		r.Deadline = w.now.Add(w.seconds("deadline", 20))
	}
	switch err := w.s.Arrive(r); {
	case err == nil:
		w.requests[r.ID] = &asked{name: name, client: r.Client, rank: r.Priority, arrived: w.now, limit: r.Deadline, state: "waiting"}
	case errors.Is(err, ErrQueueFull):
		w.checkFull(r)
	}
}

func (w *world) leave() {
	for _, id := range slices.Sorted(maps.Keys(w.requests)) {
		if r := w.requests[id]; r.state == "waiting" && w.draw("leaves", 2) == 0 {
			r.state = "left"
			if !w.s.Leave(id) {
				w.fail("request %d was not there to leave", id)
			}
			return
		}
	}
}

// crash ends a process for good.
func (w *world) crash() {
	for _, key := range slices.Sorted(maps.Keys(w.children)) {
		c := w.children[key]
		if c.ready.IsZero() || c.goes || w.draw("crashes", 2) == 0 {
			continue
		}
		w.s.Exited(key, errDrawn, w.now)
		w.failAt[key] = w.now.Add(w.s.Limits.MinBackoff)
		c.goes, c.until = true, w.now.Add(w.seconds("unload", longestUnload))
		for _, r := range w.requests {
			if r.state == "granted" && r.key == key {
				r.state = "done"
			}
		}
		return
	}
}

func (w *world) restart() {
	for _, key := range slices.Sorted(maps.Keys(w.children)) {
		c := w.children[key]
		if w.s.Models[key].Phase != Ready || w.restarts >= maxRestarts {
			continue
		}
		w.restarts++
		w.s.Restarting(key)
		c.until = w.now.Add(w.seconds("restart", longestRestart))
		return
	}
}

func (w *world) askUnload() {
	for _, key := range slices.Sorted(maps.Keys(w.s.Models)) {
		if w.draw("unload", 3) != 0 {
			continue
		}
		cancel, err := w.s.AskUnload(key)
		if cancel {
			w.s.LoadCanceled(key, w.now)
			delete(w.children, key)
		}
		if err == nil {
			return
		}
	}
}

// advance lets time pass, and ends what has come to its end, a second at a time.
func (w *world) advance(by time.Duration) {
	for range int(by / time.Second) {
		w.now = w.now.Add(time.Second)
		for _, id := range slices.Sorted(maps.Keys(w.requests)) {
			if r := w.requests[id]; r.state == "granted" && !w.now.Before(r.until) {
				r.state = "done"
				w.s.Release(id, w.now)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(w.children)) {
			w.endStep(key, w.children[key])
		}
		if w.decide(); w.fault != nil {
			return
		}
	}
}

func (w *world) endStep(key string, c *child) {
	if c.until.After(w.now) || c.until.IsZero() {
		return
	}
	switch {
	case c.goes:
		delete(w.children, key)
		w.s.Unloaded(key, w.now)
	case c.ready.IsZero() && c.fails:
		delete(w.children, key)
		w.s.LoadFailed(key, errDrawn, w.now)
		w.failAt[key] = w.now.Add(w.s.Limits.MinBackoff)
	case c.ready.IsZero():
		held := Placement{} // a little less than was expected
		for _, n := range c.held {
			held = append(held, Need{n.Place, n.Bytes - n.Bytes/uint64(8+w.draw("accuracy", 8))})
		}
		c.held, c.ready, c.until = held, w.now, time.Time{}
		w.s.Loaded(key, held, w.now)
	default:
		c.until = time.Time{}
		w.s.Restarted(key)
	}
}

// TestSchedulesKeepTheRules draws schedules of arrivals, leavings, loads that fail,
// memory that others take, crashes and reloads. No schedule may exceed a budget,
// lose a request, answer it twice or by another model, let it wait for ever, let one
// client keep another one out, unload a busy model, or unload a model soon after it was loaded.
func TestSchedulesKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := map[int]*rapid.Generator[int]{}
		d := func(label string, n int) int {
			g := numbers[n]
			if g == nil {
				g = rapid.IntRange(0, n-1)
				numbers[n] = g
			}
			return g.Draw(t, label)
		}
		if err := run(d, everyRule); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEveryRuleMatters: without any one of its rules, the scheduler breaks a
// promise in some schedule.
func TestEveryRuleMatters(t *testing.T) {
	const most = 30_000
	for without := everyRule + 1; without < rulesEnd; without++ {
		t.Run(fmt.Sprint(without), func(t *testing.T) {
			for seed := range uint64(most) {
				if err := run(seeded(seed), without); err != nil {
					t.Logf("schedule %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d schedules pass without the rule", most)
		})
	}
}

func seeded(seed uint64) draw {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(_ string, n int) int { return r.IntN(n) }
}
