package scheduler

import (
	"maps"
	"slices"
	"time"
)

// checkTurns: no client gets its second lease on a model before another one that waits
// with the same priority gets its first, and so on.
func (w *world) checkTurns(actions []Action) {
	type line struct {
		key, client string
		rank        int
	}
	given, all := map[line]int{}, map[line]int{}
	for _, a := range actions {
		if r := w.requests[a.Request]; a.Kind == Grant && r != nil {
			all[line{a.Model, r.client, r.rank}]++
		}
	}
	for _, a := range actions {
		r := w.requests[a.Request]
		if a.Kind != Grant || r == nil {
			continue
		}
		mine := line{a.Model, r.client, r.rank}
		for other, n := range all {
			if other.key == mine.key && other.rank == mine.rank && given[other] < min(n, given[mine]) {
				w.fail("%s gets lease %d on %s, and %s has %d of %d", mine.client, given[mine]+1, mine.key, other.client, given[other], n)
			}
		}
		given[mine]++
	}
}

// checkFull: a request is rejected for want of room in the queue only where no client
// has more than one request more than its client.
func (w *world) checkFull(refused *Request) {
	waits := map[string]int{}
	for _, r := range w.requests {
		if r.state == "waiting" && w.s.Names[r.name] == w.s.Names[refused.Name] {
			waits[r.client]++
		}
	}
	for client, n := range waits {
		if n > waits[refused.Client]+1 {
			w.fail("%s is kept out by %s, which has %d requests in the queue", refused.Client, client, n)
		}
	}
}

func (w *world) checkLoad(a Action) {
	if w.children[a.Model] != nil {
		w.fail("%s is loaded twice", a.Model)
	}
	if _, ok := w.specs[a.Model]; !ok {
		w.fail("%s is loaded, which is not in the settings", a.Model)
	}
	if w.now.Before(w.failAt[a.Model]) {
		w.fail("%s is tried again before its backoff has passed", a.Model)
	}
	for _, n := range a.Placement {
		p, _ := w.s.place(n.Place)
		if n.Bytes > 0 && w.claimed(n.Place)+a.Placement.on(n.Place)+p.Margin > p.Total {
			w.fail("%s has no room on %s: %d MiB claimed, %d MiB needed, of %d MiB", a.Model, n.Place, w.claimed(n.Place)/mib, n.Bytes/mib, p.Total/mib)
		}
	}
}

func (w *world) checkUnload(a Action) {
	c := w.children[a.Model]
	if c == nil || c.goes {
		w.fail("%s is unloaded, which is not loaded", a.Model)
		return
	}
	for id, r := range w.requests {
		if r.state == "granted" && r.key == a.Model {
			w.fail("%s is unloaded while request %d uses it (%s)", a.Model, id, a.Reason)
		}
	}
	spec, kept := w.specs[a.Model]
	m := w.s.Models[a.Model]
	if kept && spec.Pinned && !m.Evict {
		w.fail("%s is pinned and unloaded (%s)", a.Model, a.Reason)
	}
	idleFor := spec.IdleUnload > 0 && !w.now.Before(m.idleSince().Add(spec.IdleUnload))
	if kept && !m.Evict && !idleFor && w.now.Before(c.ready.Add(w.s.Limits.MinResidency)) {
		w.fail("%s is unloaded %v after it was loaded (%s)", a.Model, w.now.Sub(c.ready), a.Reason)
	}
}

// longestWait is when a request must have been answered that the settings allow.
func (w *world) longestWait() time.Duration {
	one := 2*longestLoad + longestLease + longestUnload
	return w.s.Limits.Patience + slack + maxRestarts*longestRestart*time.Second +
		time.Duration(len(w.s.Models)+1)*(time.Duration(one)*time.Second+w.s.Limits.MinResidency)
}

// checkRest checks the state after the last decision.
func (w *world) checkRest() {
	queued := map[uint64]bool{}
	for _, r := range w.s.Queue {
		if queued[r.ID] {
			w.fail("request %d is in the queue twice", r.ID)
		}
		queued[r.ID] = true
	}
	for id, r := range w.requests {
		if (r.state == "waiting") != queued[id] {
			w.fail("request %d is %s, and in the queue: %v", id, r.state, queued[id])
		}
		if r.state != "waiting" {
			continue
		}
		since := r.arrived
		if w.changed.After(since) {
			since = w.changed
		}
		if w.now.Sub(since) > w.longestWait() {
			w.fail("request %d for %s has waited for %v", id, r.name, w.now.Sub(since))
		}
		if m := w.s.model(w.s.Queue[slices.IndexFunc(w.s.Queue, func(q *Request) bool { return q.ID == id })]); m != nil && w.tooLarge(m) && !m.loaded() {
			w.fail("request %d waits for %s, which can never fit", id, r.name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.s.Models)) {
		w.checkModel(key, w.s.Models[key])
	}
	w.checkYield()
}

func (w *world) tooLarge(m *Model) bool {
	return !slices.ContainsFunc(m.Placements, func(p Placement) bool {
		return !slices.ContainsFunc(p, func(n Need) bool {
			place, _ := w.s.place(n.Place)
			return p.on(n.Place)+place.Margin > place.Total
		})
	})
}

func (w *world) checkModel(key string, m *Model) {
	c := w.children[key]
	if (c != nil) != (m.Phase != Unloaded && m.Phase != Failed) {
		w.fail("%s is %s, its process %+v", key, m.Phase, c)
	}
	spec, kept := w.specs[key]
	switch {
	case !kept && (m.idle() || c == nil):
		w.fail("%s is no longer in the settings and stays", key)
	case kept && m.idle() && !spec.Pinned && spec.IdleUnload > 0 && w.s.waiting(key) == 0 && !w.now.Before(m.idleSince().Add(spec.IdleUnload)):
		w.fail("%s is idle since %v and stays", key, w.now.Sub(m.idleSince()))
	case m.YieldTo != "" && m.loaded() && (w.s.waiting(m.YieldTo) == 0 || w.children[m.YieldTo] != nil) && !w.specs[m.YieldTo].Pinned:
		w.fail("%s drains for %s, for which nobody waits", key, m.YieldTo)
	}
}

// checkYield: where other programs need memory, no model is left that could go.
func (w *world) checkYield() {
	for _, p := range w.s.Places {
		if p.Free >= p.Yield {
			continue
		}
		var idle []string
		flux := false
		for key, m := range w.s.Models {
			if m.Held.on(p.ID) == 0 {
				continue
			}
			flux = flux || m.Phase != Ready
			if m.idle() && !m.Pinned && !w.now.Before(m.Since.Add(w.s.Limits.MinResidency)) {
				idle = append(idle, key)
			}
		}
		if !flux && len(idle) > 0 {
			w.fail("others need memory on %s, and %v stay", p.ID, idle)
		}
	}
}
