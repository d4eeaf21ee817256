package gfx

import (
	"fmt"
	"slices"
)

// Override is another target whose code a device may run if
// HSA_OVERRIDE_GFX_VERSION makes the runtime treat the device as that target.
type Override struct {
	Target  Target
	Version string // value of HSA_OVERRIDE_GFX_VERSION, for example "11.0.0"
	// SameISA means that both targets share major and minor version. They then
	// differ in sizes (register file, cache, compute units) and not in
	// instructions. Otherwise the code may fault.
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

// OverrideVersion returns the target in the format of HSA_OVERRIDE_GFX_VERSION:
// three decimal numbers, "11.0.0" for gfx1100 and "9.0.10" for gfx90a. It returns
// "" for a target without a version.
func (t Target) OverrideVersion() string {
	major, minor, step, ok := t.Version()
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", major, minor, step)
}

// OverridesFor returns the targets of built whose code a device of target t may
// run under an override, the most likely to work first: equal major and minor
// version before equal major version, stepping 0 before others. It considers only
// RDNA and later (major version 10 and up), where the runtime is known to accept
// an override; the data-centre parts of generation 9 differ too much in
// instructions. The result does not contain t itself.
func (t Target) OverridesFor(built []Target) []Override {
	major, minor, _, ok := t.Version()
	if !ok || major < 10 {
		return nil
	}
	sorted := slices.Clone(built)
	Sort(sorted)
	var same, other []Override
	for i, h := range sorted {
		hMajor, hMinor, _, ok := h.Version()
		if !ok || h == t || hMajor != major || (i > 0 && sorted[i-1] == h) {
			continue
		}
		r := Override{Target: h, Version: h.OverrideVersion(), SameISA: hMinor == minor}
		switch {
		case r.SameISA:
			same = append(same, r)
		case hMinor < minor:
			// Later minor versions of a generation add instructions, so only code
			// of an earlier version may run.
			other = append(other, r)
		}
	}
	return append(same, other...)
}
