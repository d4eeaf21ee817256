package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// ActionKind is what an action does.
type ActionKind uint8

// The kinds of actions.
const (
	Grant  ActionKind = iota // give the request a lease on the model
	Reject                   // answer the request with Err
	Load                     // load the model on the placement
	Unload                   // unload the model, for the reason
	Drain                    // give the model no further leases; For waits for its memory
	Resume                   // the model need not drain any more
	Forget                   // drop a model that is no longer in the settings
)

// String returns the kind's name in lower case.
func (k ActionKind) String() string {
	return [...]string{"grant", "reject", "load", "unload", "drain", "resume", "forget"}[k]
}

// Action is one thing to do.
type Action struct {
	Kind      ActionKind
	Model     string
	Request   uint64
	Placement Placement
	For       string
	Reason    string
	Err       error
}

// decision is one call of Decide: the state, and what the actions so far change
// about it.
type decision struct {
	s        *State
	now      time.Time
	keys     []string // of the models, sorted
	actions  []Action
	answered map[uint64]bool
	granted  map[string]bool      // models that got a lease
	moving   map[string]Placement // what the actions so far load and unload
	reserved map[string]bool      // places that are kept for a model that waits
}

// Decide returns what to do now. It depends on nothing but its arguments and
// changes neither. The caller applies the actions and calls Decide again, until it
// returns none.
//
//  1. A request for a name that no longer exists, one whose deadline has passed, and
//     one that an event has marked, is rejected.
//  2. A model that is no longer in the settings, or that someone asked to unload, is
//     unloaded as soon as no request uses it; the former is then forgotten.
//  3. A request for a model that failed is rejected with the cause, until the model
//     may be tried again.
//  4. A request for a loaded model gets a lease, unless the model drains: in order of
//     priority, then of arrival. A model stops draining for another when nobody
//     waits for that other model any more, or other programs have taken its memory.
//  5. The models that are wanted and not loaded are placed, one after another: first
//     those with a request that has waited longer than Patience, the oldest first;
//     then pinned models; then by priority and arrival. For each of them:
//     a. It has no placement, or none that would fit if nothing but pinned models
//     were loaded: its requests are rejected.
//     b. It is loaded where it fits best, that is, where the least memory remains. A
//     place where a model is being loaded or unloaded is not used: its free
//     memory is changing.
//     c. Otherwise idle models are unloaded, if that makes enough room: never pinned
//     ones, nor ones within MinResidency; those that are cheap to load again and
//     have been idle for long go first. The place is kept for the waiting model.
//     d. Otherwise, if other programs hold so much that no unloading would help, its
//     requests are rejected.
//     e. Otherwise it waits. If it has waited longer than Patience, busy models on
//     one of its placements drain for it, and nobody else is placed there.
//  6. On a place with less free memory than Yield, the idle model that is the
//     cheapest to load again is unloaded.
//  7. A model that has been idle for IdleUnload, and that nobody waits for, is
//     unloaded.
func Decide(s *State, now time.Time) []Action {
	d := &decision{
		s: s, now: now, keys: sortedKeys(s.Models),
		answered: map[uint64]bool{}, granted: map[string]bool{}, moving: map[string]Placement{}, reserved: map[string]bool{},
	}
	d.rejectLost()     // 1
	d.unloadRetired()  // 2
	d.rejectFailed()   // 3
	d.grantLoaded()    // 4
	d.placeWanted()    // 5
	d.yieldToOthers()  // 6
	d.unloadUnneeded() // 7
	return d.actions
}

// sortedKeys returns the keys of a map in their order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (d *decision) add(a Action) { d.actions = append(d.actions, a) }

func (d *decision) reject(r *Request, err error) {
	d.answered[r.ID] = true
	d.add(Action{Kind: Reject, Model: d.s.Names[r.Name], Request: r.ID, Err: err})
}

func (d *decision) unload(key, reason string) {
	d.moving[key] = d.s.Models[key].Held
	d.add(Action{Kind: Unload, Model: key, Reason: reason})
}

// rejectLost is rule 1.
func (d *decision) rejectLost() {
	for _, r := range d.s.Queue {
		switch {
		case r.Err != nil:
			d.reject(r, r.Err)
		case d.s.model(r) == nil:
			d.reject(r, ErrUnknownModel)
		case !r.Deadline.IsZero() && !d.now.Before(r.Deadline) && d.s.has(ruleDeadline):
			d.reject(r, ErrDeadline)
		}
	}
}

// unloadRetired is rule 2.
func (d *decision) unloadRetired() {
	for _, key := range d.keys {
		m := d.s.Models[key]
		switch {
		case m.Retired && (m.Phase == Unloaded || m.Phase == Failed):
			d.add(Action{Kind: Forget, Model: key})
		case m.Retired && (m.idle() || m.Phase == Ready && !d.s.has(ruleBusy)):
			d.unload(key, "it is no longer in the settings")
		case m.Evict && m.idle():
			d.unload(key, "on request")
		}
	}
}

// rejectFailed is rule 3.
func (d *decision) rejectFailed() {
	if !d.s.has(ruleBackoff) {
		return
	}
	for _, r := range d.s.Queue {
		if m := d.s.model(r); m != nil && m.Phase == Failed && d.now.Before(m.RetryAt) && !d.answered[r.ID] {
			d.reject(r, &FailedError{Cause: m.Cause, RetryAt: m.RetryAt})
		}
	}
}

// grantLoaded is rule 4.
func (d *decision) grantLoaded() {
	for _, key := range d.keys {
		m := d.s.Models[key]
		if m.YieldTo != "" && d.s.has(ruleResume) && (!d.wanted(m.YieldTo) || d.blockedByOthers(m.YieldTo, d.s.Models[m.YieldTo]) != nil) {
			d.add(Action{Kind: Resume, Model: key})
		}
	}
	for _, r := range d.byPriority() {
		m := d.s.model(r)
		if m == nil || d.answered[r.ID] || !m.loaded() || m.draining() && d.s.has(ruleDrain) {
			continue
		}
		if _, leaves := d.moving[d.s.Names[r.Name]]; leaves {
			continue
		}
		d.answered[r.ID], d.granted[d.s.Names[r.Name]] = true, true
		d.add(Action{Kind: Grant, Model: d.s.Names[r.Name], Request: r.ID})
	}
}

// byPriority returns the queue in order of priority, then of arrival.
func (d *decision) byPriority() []*Request {
	q := slices.Clone(d.s.Queue)
	slices.SortStableFunc(q, func(a, b *Request) int { return cmp.Compare(b.Priority, a.Priority) })
	return q
}

// wanted reports whether a model that is not loaded has requests, or is pinned.
func (d *decision) wanted(key string) bool {
	m := d.s.Models[key]
	if m == nil || m.Retired || m.Phase != Unloaded && m.Phase != Failed {
		return false
	}
	if m.Phase == Failed && d.now.Before(m.RetryAt) && d.s.has(ruleBackoff) {
		return false
	}
	if m.Pinned {
		return true
	}
	return slices.ContainsFunc(d.s.Queue, func(r *Request) bool { return d.s.Names[r.Name] == key && !d.answered[r.ID] })
}

// want is a model that is to be loaded, and how urgently.
type want struct {
	key      string
	since    time.Time // the arrival of its oldest request
	priority int       // the highest of its requests
	pinned   bool      // and without a request
	starving bool
}

// wants returns the models that are to be loaded in the order of rule 5.
func (d *decision) wants() []want {
	byKey := map[string]*want{}
	for _, r := range d.s.Queue {
		key := d.s.Names[r.Name]
		if d.answered[r.ID] || !d.wanted(key) {
			continue
		}
		w := byKey[key]
		if w == nil {
			w = &want{key: key, since: r.Arrived, priority: r.Priority}
			byKey[key] = w
		}
		w.priority = max(w.priority, r.Priority)
		w.starving = w.starving || !d.now.Before(r.Arrived.Add(d.s.Limits.Patience)) && d.s.has(ruleStarving)
	}
	var all []want
	for _, key := range d.keys {
		switch w := byKey[key]; {
		case w != nil:
			w.pinned = d.s.Models[key].Pinned
			all = append(all, *w)
		case d.wanted(key):
			all = append(all, want{key: key, since: d.now, pinned: true})
		}
	}
	slices.SortStableFunc(all, func(a, b want) int {
		if a.starving && b.starving {
			return a.since.Compare(b.since)
		}
		return cmp.Or(trueFirst(a.starving, b.starving), trueFirst(a.pinned, b.pinned), cmp.Compare(b.priority, a.priority), a.since.Compare(b.since))
	})
	return all
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// placeWanted is rule 5.
func (d *decision) placeWanted() {
	for _, w := range d.wants() {
		d.placeModel(w)
	}
}

func (d *decision) placeModel(w want) {
	m := d.s.Models[w.key]
	if err := d.neverFits(w.key, m); err != nil { // a
		if d.s.has(ruleRefuse) {
			d.rejectAll(w.key, err)
		}
		return
	}
	if p := d.bestFit(m.Placements); p != nil { // b
		d.moving[w.key] = p
		d.add(Action{Kind: Load, Model: w.key, Placement: p})
		return
	}
	if victims, p := d.evictions(w.key, m, false); p != nil { // c
		for _, key := range victims {
			d.unload(key, "to make room for "+w.key)
		}
		d.reserve(p)
		return
	}
	if err := d.blockedByOthers(w.key, m); err != nil && d.s.has(ruleForeign) { // d
		d.rejectAll(w.key, err)
		return
	}
	if !w.starving { // e
		return
	}
	victims, p := d.evictions(w.key, m, true)
	for _, key := range victims {
		if v := d.s.Models[key]; !v.draining() {
			d.add(Action{Kind: Drain, Model: key, For: w.key})
		}
	}
	if p != nil {
		d.reserve(p)
		return
	}
	for _, p := range m.Placements {
		d.reserve(p)
	}
}

func (d *decision) reserve(p Placement) {
	for _, n := range p {
		if n.Bytes > 0 {
			d.reserved[n.Place] = true
		}
	}
}

// rejectAll rejects every request for a model.
func (d *decision) rejectAll(key string, err error) {
	for _, r := range d.s.Queue {
		if d.s.Names[r.Name] == key && !d.answered[r.ID] {
			d.reject(r, err)
		}
	}
}

// yieldToOthers is rule 6.
func (d *decision) yieldToOthers() {
	if !d.s.has(ruleYield) {
		return
	}
	for _, p := range d.s.Places {
		if p.Free >= p.Yield || d.inFlux(p.ID) {
			continue
		}
		candidates := slices.DeleteFunc(d.candidates(Placement{{Place: p.ID, Bytes: 1}}, "", false), func(key string) bool { return d.moving[key] != nil })
		if len(candidates) > 0 {
			d.unload(candidates[0], "other programs need memory on "+p.ID)
		}
	}
}

// unloadUnneeded is rule 7.
func (d *decision) unloadUnneeded() {
	for _, key := range d.keys {
		m := d.s.Models[key]
		if !m.idle() || d.granted[key] || m.Pinned || m.IdleUnload <= 0 || d.moving[key] != nil || d.s.waiting(key) > 0 {
			continue
		}
		if !d.now.Before(m.idleSince().Add(m.IdleUnload)) && d.s.has(ruleIdle) {
			d.unload(key, "it was idle for "+m.IdleUnload.String())
		}
	}
}

// idleSince returns when the model was last of use.
func (m *Model) idleSince() time.Time {
	if m.LastUse.After(m.Since) {
		return m.LastUse
	}
	return m.Since
}
