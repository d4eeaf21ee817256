package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// inFlux reports whether the free memory of a place is changing: a model is being
// loaded, unloaded or restarted there. Mapped places are never in flux, because
// what our models hold there is calculated and not measured.
func (d *decision) inFlux(place string) bool {
	if p, ok := d.s.place(place); !ok || p.Mapped || !d.s.has(ruleFlux) {
		return false
	}
	for _, m := range d.s.Models {
		if (m.Phase == Loading || m.Phase == Unloading || m.Phase == Restarting) && m.Held.on(place) > 0 {
			return true
		}
	}
	for _, p := range d.moving {
		if p.on(place) > 0 {
			return true
		}
	}
	return false
}

// held returns what the models that match hold on a place, in bytes, with those
// that the actions so far load.
func (d *decision) held(place string, match func(key string, m *Model) bool) uint64 {
	var sum uint64
	for key, m := range d.s.Models {
		if match(key, m) {
			p := m.Held
			if moving := d.moving[key]; moving != nil {
				p = moving
			}
			sum = plus(sum, p.on(place))
		}
	}
	return sum
}

// free returns the memory of a place that a model may take now, in bytes.
func (d *decision) free(p Place) uint64 {
	if !d.s.has(ruleBudget) {
		return p.Total
	}
	held := d.held(p.ID, func(string, *Model) bool { return true })
	free := min(p.Free, less(p.Total, held))
	if p.Mapped {
		free = less(min(p.Free, p.Total), held)
	}
	if !d.s.has(ruleMargin) {
		return free
	}
	return less(free, p.Margin)
}

// permanent matches the pinned models besides the one called key.
func permanent(key string) func(string, *Model) bool {
	return func(other string, m *Model) bool { return other != key && m.Pinned && !m.Retired }
}

// neverFits returns the reason why a model could not be placed even if only pinned
// models were loaded and no other program used any memory, or nil.
func (d *decision) neverFits(key string, m *Model) error {
	if len(m.Placements) == 0 {
		return &NoRoomError{Cause: m.Refusal}
	}
	var reasons []string
	for _, placement := range m.Placements {
		reason := d.tooSmall(placement, func(p Place) (uint64, string) {
			pinned := d.held(p.ID, permanent(key))
			return less(less(p.Total, p.Margin), pinned), describe("pinned models hold", pinned)
		})
		if reason == "" {
			return nil
		}
		reasons = append(reasons, reason)
	}
	return &NoRoomError{Reasons: reasons}
}

// blockedByOthers returns the reason why a model could not be placed now even if
// only pinned models were loaded, or nil. It returns nil while a place is in flux.
func (d *decision) blockedByOthers(key string, m *Model) error {
	var reasons []string
	for _, placement := range m.Placements {
		for _, n := range placement {
			if d.inFlux(n.Place) || d.reserved[n.Place] {
				return nil
			}
		}
		reason := d.tooSmall(placement, func(p Place) (uint64, string) {
			evictable := d.held(p.ID, func(other string, m *Model) bool { return !permanent(key)(other, m) })
			used := less(p.Total, plus(min(p.Free, p.Total), d.held(p.ID, func(string, *Model) bool { return true })))
			return plus(d.free(p), evictable), describe("other programs hold", used)
		})
		if reason == "" {
			return nil
		}
		reasons = append(reasons, reason)
	}
	return &NoRoomError{Reasons: reasons, Temporary: true}
}

func describe(what string, bytes uint64) string {
	if bytes < 1<<20 {
		return ""
	}
	return "; " + what + " " + size(bytes)
}

// tooSmall returns a sentence about the first place on which the placement takes
// more than budget returns, or "".
func (d *decision) tooSmall(placement Placement, budget func(Place) (bytes uint64, why string)) string {
	for _, n := range placement {
		p, ok := d.s.place(n.Place)
		if !ok {
			return fmt.Sprintf("%s is gone", n.Place)
		}
		if most, why := budget(p); placement.on(n.Place) > most {
			return fmt.Sprintf("it needs %s on %s, which has room for %s of %s%s", size(placement.on(n.Place)), n.Place, size(most), size(p.Total), why)
		}
	}
	return ""
}

// size formats bytes in a binary unit.
func size(b uint64) string {
	if b >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", b>>20)
}

// deficits returns how much is missing on each place of a placement, in bytes; ok
// is false where a place is in flux, reserved or gone.
func (d *decision) deficits(placement Placement) (missing Placement, ok bool) {
	for _, n := range placement {
		p, found := d.s.place(n.Place)
		if !found || n.Bytes > 0 && (d.inFlux(n.Place) || d.reserved[n.Place]) {
			return nil, false
		}
		if need := less(placement.on(n.Place), d.free(p)); need > 0 && missing.on(n.Place) == 0 {
			missing = append(missing, Need{n.Place, need})
		}
	}
	return missing, true
}

// bestFit returns the placement that fits now and leaves the least memory on its
// places, nil where none fits.
func (d *decision) bestFit(placements []Placement) Placement {
	var best Placement
	least := uint64(math.MaxUint64)
	for _, placement := range placements {
		missing, ok := d.deficits(placement)
		if !ok || len(missing) > 0 {
			continue
		}
		var rest uint64
		for _, n := range placement {
			if p, ok := d.s.place(n.Place); ok {
				rest = plus(rest, less(d.free(p), n.Bytes))
			}
		}
		if best == nil || rest < least {
			best, least = placement, rest
		}
	}
	return best
}

// evictions returns the models whose unloading makes room for the model, at the
// least cost, and the placement that they make room for; nil where there is none.
// With drain, busy models count, too.
func (d *decision) evictions(key string, m *Model, drain bool) (victims []string, placement Placement) {
	least := math.Inf(1)
	for _, p := range m.Placements {
		missing, ok := d.deficits(p)
		if !ok {
			continue
		}
		keys := d.choose(missing, d.candidates(missing, key, drain))
		if keys == nil {
			continue
		}
		cost := 0.0
		for _, k := range keys {
			cost += d.cost(k, key)
		}
		if cost < least {
			victims, placement, least = keys, p, cost
		}
	}
	return victims, placement
}

// candidates returns the models that may be unloaded to free memory where it is
// missing, the cheapest first.
func (d *decision) candidates(missing Placement, forKey string, drain bool) []string {
	var keys []string
	for _, key := range d.keys {
		m := d.s.Models[key]
		holds := slices.ContainsFunc(missing, func(n Need) bool { return m.Held.on(n.Place) > 0 })
		busy := (len(m.Leases) > 0 || d.granted[key]) && d.s.has(ruleBusy)
		switch {
		case key == forKey, m.Phase != Ready, !holds, d.moving[key] != nil:
		case m.Pinned && !m.Retired && d.s.has(rulePinned):
		case d.now.Before(m.Since.Add(d.s.Limits.MinResidency)) && d.s.has(ruleResidency):
		case busy && !drain:
		default:
			keys = append(keys, key)
		}
	}
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(d.cost(a, forKey), d.cost(b, forKey)) })
	return keys
}

// choose returns the first of the candidates that free what is missing, without
// those that turn out not to be necessary; nil if all together free too little.
func (d *decision) choose(missing Placement, candidates []string) []string {
	enough := func(keys []string) bool {
		return !slices.ContainsFunc(missing, func(n Need) bool {
			var sum uint64
			for _, key := range keys {
				sum = plus(sum, d.s.Models[key].Held.on(n.Place))
			}
			return sum < n.Bytes
		})
	}
	var chosen []string
	for _, key := range candidates {
		if enough(chosen) {
			break
		}
		chosen = append(chosen, key)
	}
	if !enough(chosen) || len(chosen) == 0 {
		return nil
	}
	for i := len(chosen) - 1; i >= 0; i-- {
		if rest := slices.Delete(slices.Clone(chosen), i, i+1); enough(rest) {
			chosen = rest
		}
	}
	return chosen
}

// assumedSpeed is how fast a model is assumed to load that has not been loaded
// yet, in bytes a second.
const assumedSpeed = 1 << 30

// busyCost makes draining a busy model dearer than unloading any idle one.
const busyCost = 1e9

// cost returns what unloading a model costs: the seconds that loading it again
// takes, less the longer nobody has used it. A model that drains for the waiting
// one already costs nothing.
func (d *decision) cost(key, forKey string) float64 {
	m := d.s.Models[key]
	if m.YieldTo == forKey && forKey != "" {
		return 0
	}
	load := m.LoadTime.Seconds()
	if load == 0 {
		load = float64(m.Held.bytes()) / assumedSpeed
	}
	idle := time.Duration(0)
	if len(m.Leases) == 0 && !d.granted[key] {
		idle = d.now.Sub(m.idleSince())
	} else {
		load += busyCost
	}
	return load / (1 + max(idle, 0).Seconds())
}
