package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// draw returns a number from 0 to n-1.
type draw func(label string, n int) int

const (
	mib = 1 << 20
	// The longest times of a world, in seconds.
	longestLease, longestLoad, longestUnload, longestRestart = 20, 12, 5, 6
	maxRestarts                                              = 3
)

// world is a machine with models whose memory, times and failures are drawn, and
// the rules that every schedule must keep. It is the reference for State: it has
// its own record of requests, leases and memory.
type world struct {
	draw     draw
	s        *State
	now      time.Time
	foreign  map[string]uint64 // used by other programs
	specs    map[string]Spec
	children map[string]*child
	requests map[uint64]*asked
	nextID   uint64
	changed  time.Time // when settings changed last
	restarts int
	failAt   map[string]time.Time // no load before
	fault    error
}

// child is a process that exists.
type child struct {
	held  Placement // when loaded
	ready time.Time // zero while it loads
	until time.Time // of loading, restarting or unloading
	fails bool
	goes  bool
}

// asked is what a client knows about its request.
type asked struct {
	name    string
	client  string
	rank    int // its priority
	arrived time.Time
	limit   time.Time
	state   string // "waiting", "granted", "rejected", "left", "done"
	until   time.Time
	key     string
}

func newWorld(d draw, without rule) *world {
	w := &world{
		draw: d, now: time.Unix(1e9, 0), foreign: map[string]uint64{}, specs: map[string]Spec{},
		children: map[string]*child{}, requests: map[uint64]*asked{}, failAt: map[string]time.Time{},
	}
	w.s = NewState(Limits{
		MinResidency: time.Duration(d("residency", 8)) * time.Second, Patience: time.Duration(1+d("patience", 10)) * time.Second,
		Queue: 1 + d("queue", 8), MinBackoff: 2 * time.Second, MaxBackoff: 30 * time.Second, Poll: 5 * time.Second,
	})
	w.s.without = without
	w.s.Places = []Place{{ID: Host, Total: 4000 * mib, Margin: 100 * mib, Mapped: true}}
	for i := range 1 + d("cards", 2) {
		w.s.Places = append(w.s.Places, Place{ID: fmt.Sprint("card", i), Total: uint64(500+100*d("size", 8)) * mib, Margin: 50 * mib, Yield: uint64(10*d("yield", 3)) * mib})
	}
	w.configure()
	return w
}

// configure draws settings: names, keys and what each model needs.
func (w *world) configure() {
	names, specs := map[string]string{}, map[string]Spec{}
	for i := range 2 + w.draw("models", 4) {
		key := fmt.Sprintf("key%d", w.draw("key", 6))
		names[fmt.Sprint("model", i)] = key
		if w.draw("alias", 4) == 0 {
			names[fmt.Sprint("alias", i)] = key
		}
		specs[key] = Spec{Pinned: w.draw("pinned", 8) == 0, IdleUnload: time.Duration(w.draw("idle", 3)*20) * time.Second}
	}
	w.s.Configure(names, specs)
	w.specs, w.changed = specs, w.now
	for _, key := range slices.Sorted(maps.Keys(w.s.Models)) {
		if w.s.Models[key].Placements == nil {
			w.s.Planned(key, w.placements(), nil)
		}
	}
}

// placements draws a model: on any card, on all of them together, or on the host.
func (w *world) placements() []Placement {
	bytes := uint64(50+50*w.draw("bytes", 18)) * mib
	host := Need{Host, uint64(10*w.draw("host", 5)) * mib}
	var cards []Placement
	for _, p := range w.s.Places[1:] {
		cards = append(cards, Placement{{p.ID, bytes}, host})
	}
	switch w.draw("kind", 6) {
	case 0:
		return []Placement{{{Host, bytes * 2}}}
	case 1:
		all := Placement{host}
		for _, p := range w.s.Places[1:] {
			all = append(all, Need{p.ID, bytes / 2})
		}
		return []Placement{all}
	}
	return cards
}

// used returns what a place's memory is used for: by other programs, and by our
// processes, which use a part of their memory while they load and unload.
func (w *world) used(place string) uint64 {
	sum := w.foreign[place]
	for _, c := range w.children {
		part := c.held.on(place)
		if c.ready.IsZero() || c.goes || c.until.After(w.now) {
			part /= 2
		}
		sum += part
	}
	return sum
}

// claimed returns what a place's memory will be used for when every process has
// what it takes.
func (w *world) claimed(place string) uint64 {
	sum := w.foreign[place]
	for _, c := range w.children {
		sum += c.held.on(place)
	}
	return sum
}

// readMemory sets what the kernel says. On the host it counts mapped files as free.
func (w *world) readMemory() {
	for i, p := range w.s.Places {
		used := w.used(p.ID)
		if p.Mapped {
			used = w.foreign[p.ID]
		}
		w.s.Places[i].Free = less(p.Total, used)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf(format, args...)
	}
}

// decide carries out decisions until there is nothing more to do, and checks each
// action and the state that results.
func (w *world) decide() {
	for round := 0; w.fault == nil; round++ {
		w.readMemory()
		actions := Decide(w.s, w.now)
		if len(actions) == 0 {
			break
		}
		w.checkTurns(actions)
		if round > 100 {
			w.fail("it does not come to rest: %v", actions)
			return
		}
		for _, a := range actions {
			w.carryOut(a)
			w.s.Apply(a, w.now)
		}
	}
	w.checkRest()
}

func (w *world) carryOut(a Action) {
	r, c := w.requests[a.Request], w.children[a.Model]
	switch a.Kind {
	case Grant:
		switch {
		case r == nil || r.state != "waiting":
			w.fail("a lease for request %d, which does not wait: %+v", a.Request, r)
			return
		case w.s.Names[r.name] != a.Model:
			w.fail("%s is answered by %s instead of %s", r.name, a.Model, w.s.Names[r.name])
		case c == nil || c.ready.IsZero() || c.goes:
			w.fail("a lease on %s, which is not loaded", a.Model)
		case !r.limit.IsZero() && !w.now.Before(r.limit):
			w.fail("a lease after the deadline")
		case w.s.Models[a.Model].draining():
			w.fail("a lease on %s, which drains", a.Model)
		}
		r.state, r.key, r.until = "granted", a.Model, w.now.Add(w.seconds("lease", longestLease))
	case Reject:
		switch {
		case r == nil || r.state != "waiting":
			w.fail("an answer for request %d, which does not wait", a.Request)
			return
		case a.Err == nil:
			w.fail("rejected without a reason")
		}
		r.state = "rejected"
	case Load:
		w.checkLoad(a)
		w.children[a.Model] = &child{held: a.Placement, until: w.now.Add(w.seconds("load", longestLoad)), fails: w.draw("fails", 6) == 0}
	case Unload:
		w.checkUnload(a)
		if c != nil {
			c.goes, c.until = true, w.now.Add(w.seconds("unload", longestUnload))
		}
	case Drain, Resume:
	case Forget:
		if _, kept := w.specs[a.Model]; kept || c != nil {
			w.fail("forgot %s, which is in use", a.Model)
		}
		delete(w.failAt, a.Model)
	}
}

// slack is for the steps between two decisions.
const slack = 10 * time.Second

func (w *world) seconds(label string, most int) time.Duration {
	return time.Duration(1+w.draw(label, most)) * time.Second
}

var errDrawn = errors.New("drawn")
