package scheduler

import (
	"cmp"
	"slices"
	"time"
)

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
	turn     int       // its place in the order of priorities and turns
	pinned   bool      // and without a request
	starving bool
}

// wants returns the models that are to be loaded in the order of rule 5.
func (d *decision) wants() []want {
	byKey := map[string]*want{}
	type demand struct {
		client, key string
		priority    int
	}
	first := map[demand]bool{}
	var firsts []*Request // one for each model that a client wants
	for _, r := range d.s.Queue {
		key := d.s.Names[r.Name]
		if d.answered[r.ID] || !d.wanted(key) {
			continue
		}
		w := byKey[key]
		if w == nil {
			w = &want{key: key, since: r.Arrived, turn: -1}
			byKey[key] = w
		}
		w.starving = w.starving || !d.now.Before(r.Arrived.Add(d.s.Limits.Patience)) && d.s.has(ruleStarving)
		if one := (demand{r.Client, key, r.Priority}); !first[one] {
			first[one] = true
			firsts = append(firsts, r)
		}
	}
	for i, r := range d.inTurns(firsts, func(*Request) string { return "" }) {
		if w := byKey[d.s.Names[r.Name]]; w.turn < 0 {
			w.turn = i
		}
	}
	var all []want
	for _, key := range d.keys {
		switch w := byKey[key]; {
		case w != nil:
			w.pinned = d.s.Models[key].Pinned
			all = append(all, *w)
		case d.wanted(key):
			all = append(all, want{key: key, since: d.now, turn: len(firsts), pinned: true})
		}
	}
	slices.SortStableFunc(all, func(a, b want) int {
		if a.starving && b.starving {
			return a.since.Compare(b.since)
		}
		return cmp.Or(trueFirst(a.starving, b.starving), trueFirst(a.pinned, b.pinned), cmp.Compare(a.turn, b.turn))
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
	if !m.planned() {
		return
	}
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
			d.unload(key, UnloadRoom, "to make room for "+w.key)
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
