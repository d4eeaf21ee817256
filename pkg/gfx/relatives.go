package gfx

import "fmt"

// Relative is another target whose code a device may run when the driver is
// told, by HSA_OVERRIDE_GFX_VERSION, to take the device for that target.
type Relative struct {
	Target   Target
	Override string // value of HSA_OVERRIDE_GFX_VERSION, as "11.0.0"
	// SameISA is true where both share major and minor version: they differ
	// then in sizes (register file, cache, compute units), not in
	// instructions. Otherwise code may run and may also fault.
	SameISA bool
}

// Family returns the generation that targets share, such as "gfx11" for
// gfx1100, gfx1103 and gfx1151, or "" where the target has no version.
func (t Target) Family() string {
	major, _, _, ok := t.Version()
	if !ok {
		return ""
	}
	return fmt.Sprintf("gfx%d", major)
}

// OverrideVersion returns the target as HSA_OVERRIDE_GFX_VERSION wants it:
// three decimal numbers ("11.0.0"; gfx90a gives "9.0.10"). It is "" for a
// target without a version.
func (t Target) OverrideVersion() string {
	major, minor, step, ok := t.Version()
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", major, minor, step)
}

// RelativesIn returns those of have whose code a device of target t may run
// under an override, the likeliest first: equal major and minor version before
// equal major version, stepping 0 before others. Only generations are
// considered in which the driver's stack is known to accept it, RDNA and later
// (major version 10 up); the data-centre parts of generation 9 differ too
// much in instructions. The target itself is not its own relative.
func (t Target) RelativesIn(have []Target) []Relative {
	major, minor, _, ok := t.Version()
	if !ok || major < 10 {
		return nil
	}
	sorted := append([]Target(nil), have...)
	Sort(sorted)
	var same, other []Relative
	for i, h := range sorted {
		hMajor, hMinor, _, ok := h.Version()
		if !ok || h == t || hMajor != major || (i > 0 && sorted[i-1] == h) {
			continue
		}
		r := Relative{Target: h, Override: h.OverrideVersion(), SameISA: hMinor == minor}
		switch {
		case r.SameISA:
			same = append(same, r)
		case hMinor < minor:
			// Later minor versions of a generation add instructions, so only
			// code of an earlier one is worth trying.
			other = append(other, r)
		}
	}
	return append(same, other...)
}
