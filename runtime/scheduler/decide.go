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
	Cause     UnloadCause
	Err       error
}

// UnloadCause is why a model is unloaded.
type UnloadCause string

// The causes of an unload.
const (
	UnloadSettings UnloadCause = "settings" // it is no longer in the settings
	UnloadRequest  UnloadCause = "request"  // somebody asked for it
	UnloadRoom     UnloadCause = "room"     // another model needs its memory
	UnloadOthers   UnloadCause = "others"   // other programs need its memory
	UnloadIdle     UnloadCause = "idle"     // it was not used for Spec.IdleUnload
)

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
//     priority, then in turns between clients. A model stops draining for another when nobody
//     waits for that other model any more, or other programs have taken its memory.
//  5. The models that are wanted and not loaded are placed, one after another: first
//     those with a request that has waited longer than Patience, the oldest first;
//     then pinned models; then by priority, and in turns between the clients that
//     want them. One that has not been planned yet waits. For each of the others:
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

func (d *decision) unload(key string, cause UnloadCause, reason string) {
	d.moving[key] = d.s.Models[key].Held
	d.add(Action{Kind: Unload, Model: key, Cause: cause, Reason: reason})
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
			d.unload(key, UnloadSettings, "it is no longer in the settings")
		case m.Evict && m.idle():
			d.unload(key, UnloadRequest, "on request")
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
	// Turns are counted among these alone: a request that was rejected just now took none.
	var grantable []*Request
	for _, r := range d.s.Queue {
		m := d.s.model(r)
		if m == nil || d.answered[r.ID] || !m.loaded() || m.draining() && d.s.has(ruleDrain) {
			continue
		}
		if _, leaves := d.moving[d.s.Names[r.Name]]; !leaves {
			grantable = append(grantable, r)
		}
	}
	for _, r := range d.inTurns(grantable, func(r *Request) string { return d.s.Names[r.Name] }) {
		d.answered[r.ID], d.granted[d.s.Names[r.Name]] = true, true
		d.add(Action{Kind: Grant, Model: d.s.Names[r.Name], Request: r.ID})
	}
}

// inTurns returns requests in order of priority. Of requests with the same priority,
// the first one of each client precedes the second one of any, and so on, in order
// of arrival. Requests for which apart returns different texts are counted apart.
func (d *decision) inTurns(requests []*Request, apart func(*Request) string) []*Request {
	type line struct {
		client, apart string
		priority      int
	}
	count, turns := map[line]int{}, map[*Request]int{}
	for _, r := range requests {
		l := line{r.Client, apart(r), r.Priority}
		turns[r] = count[l]
		count[l]++
	}
	q := slices.Clone(requests)
	slices.SortStableFunc(q, func(a, b *Request) int {
		if c := cmp.Compare(b.Priority, a.Priority); c != 0 || !d.s.has(ruleTurns) {
			return c
		}
		return cmp.Compare(turns[a], turns[b])
	})
	return q
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
			d.unload(candidates[0], UnloadOthers, "other programs need memory on "+p.ID)
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
			d.unload(key, UnloadIdle, "it was idle for "+m.IdleUnload.String())
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
