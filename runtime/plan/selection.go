package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// selection is the result of choosing devices.
type selection struct {
	backend  Backend
	devices  []gpu.Device
	override string // value for gpu.EnvTargetOverride, empty for none
	target   gfx.Target
	reasons  []string
	why      string // no device was chosen, for this reason
}

// candidate is a device that could be used, with the override it needs.
type candidate struct {
	gpu.Device
	native   bool
	override string
	target   gfx.Target
}

// selectHIP chooses devices for HIP: visible ones that the bundle has code for, in the
// order of [Request.compareCandidates]. Options limit the choice.
func selectHIP(r *Request) (selection, error) {
	sel := selection{backend: BackendHIP}
	o := r.Options
	if r.NoGPU != "" {
		sel.why = r.NoGPU
		return sel, nil
	}
	dropped := droppedOverrides(gpu.TargetOverrides(r.Environ))
	mask := gpu.NewMask(r.Environ)
	var (
		cands    []candidate
		rejected []string
	)
	devices := mask.Apply(r.Devices)
	for _, d := range devices {
		if o.Devices.ID != "" && !hasID(d, o.Devices.ID) {
			continue
		}
		c, why, err := evaluate(d, r)
		if err != nil {
			return sel, err
		}
		if why != "" {
			rejected = append(rejected, describeDevice(d)+": "+why)
			continue
		}
		cands = append(cands, c)
	}
	if len(cands) == 0 {
		sel.why, sel.reasons = noneReason(devices, rejected), dropped
		return sel, nil
	}
	slices.SortStableFunc(cands, r.compareCandidates)
	chosen, err := bestEqual(cands, o.Devices.Count)
	if err != nil {
		return sel, err
	}
	for _, c := range chosen {
		sel.devices = append(sel.devices, c.Device)
	}
	sel.override, sel.target = chosen[0].override, chosen[0].target
	sel.addReasons(r, cands, chosen, rejected, mask)
	sel.reasons = append(sel.reasons, dropped...)
	return sel, nil
}

// hasID reports whether id is the ID or the unique id of a device.
func hasID(d gpu.Device, id string) bool {
	return strings.EqualFold(d.ID(), id) || (d.UUID() != "" && strings.EqualFold(d.UUID(), id))
}

// checkDevice reports a device that the options name and that does not exist. A device
// that exists and cannot be used is no error.
func (r *Request) checkDevice() error {
	id := r.Options.Devices.ID
	if id == "" || slices.ContainsFunc(r.Devices, func(d gpu.Device) bool { return hasID(d, id) }) {
		return nil
	}
	have := "this machine has no GPU"
	if len(r.Devices) > 0 {
		var names []string
		for _, d := range r.Devices {
			names = append(names, describeDevice(d))
		}
		have = "there are: " + strings.Join(names, ", ")
	}
	return &OptionError{"Devices.ID", fmt.Errorf("%w is called %q; %s", ErrNoGPU, id, have)}
}

// evaluate returns a device as a candidate, or why it cannot be used. Its error is that
// of an invalid option.
func evaluate(d gpu.Device, r *Request) (c candidate, why string, err error) {
	c = candidate{Device: d, target: d.Target}
	if !d.Visible {
		return c, d.UnusableReason, nil
	}
	if forced := string(r.Options.Devices.Override); forced != "" && r.Options.Devices.Override != OverrideOff && r.Options.Devices.Override != OverrideAuto {
		t, err := overrideTarget(forced)
		if err != nil {
			return c, "", err
		}
		if !slices.Contains(r.BundleTargets, t) {
			return c, fmt.Sprintf("the override %s makes it %s, for which the bundle has no code (it has %s)", forced, t, gfx.Join(r.BundleTargets, ", ")), nil
		}
		c.native, c.override, c.target = t == d.Target, forced, t
		return c, "", nil
	}
	if slices.Contains(r.BundleTargets, d.Target) {
		c.native = true
		return c, "", nil
	}
	overrides := d.Target.OverridesFor(r.BundleTargets)
	if len(overrides) == 0 || !overrides[0].SameISA {
		return c, fmt.Sprintf("the bundle has no code for %s (it has %s)", d.Target, gfx.Join(r.BundleTargets, ", ")), nil
	}
	if r.Options.Devices.Override != OverrideAuto {
		return c, fmt.Sprintf("the bundle has no code for %s; its relative %s may work with the override set to auto", d.Target, overrides[0].Target), nil
	}
	c.override, c.target = overrides[0].Version, overrides[0].Target
	return c, "", nil
}

// overrideTarget returns the target of a version: gfx1100 for "11.0.0".
func overrideTarget(v string) (gfx.Target, error) {
	parts := strings.Split(v, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("override %q is neither auto, off nor a version such as 11.0.0", v)
	}
	var n [3]uint64
	for i, p := range parts {
		u, err := strconv.ParseUint(p, 10, 8)
		if err != nil || (i > 0 && u > 15) {
			return "", fmt.Errorf("override %q is neither auto, off nor a version such as 11.0.0", v)
		}
		n[i] = u
	}
	return gfx.Parse(fmt.Sprintf("gfx%d%x%x", n[0], n[1], n[2]))
}

// compareCandidates sorts discrete before integrated devices, then those on which HIP
// has not failed first, then native before overridden ones, then by free memory, then in
// the runtime's own order.
func (r *Request) compareCandidates(a, b candidate) int {
	return cmp.Or(
		boolFirst(!a.Integrated, !b.Integrated),
		boolFirst(!r.hasFailed(a, BackendHIP), !r.hasFailed(b, BackendHIP)),
		boolFirst(a.native, b.native),
		cmp.Compare(b.VRAMFree(), a.VRAMFree()),
		cmp.Compare(a.Index, b.Index),
	)
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// bestEqual returns the first of the sorted candidates, and as many of its equals as want
// needs: devices with the same target, override and kind.
func bestEqual(cands []candidate, want int) ([]candidate, error) {
	if want <= 1 {
		return cands[:1], nil
	}
	var out []candidate
	for _, c := range cands {
		if c.Target == cands[0].Target && c.override == cands[0].override && c.Integrated == cands[0].Integrated {
			out = append(out, c)
		}
	}
	if len(out) < want {
		return nil, &OptionError{"Devices.Count", fmt.Errorf("%w: %d equal cards requested, %d of %s found", ErrNoGPU, want, len(out), cands[0].Target)}
	}
	return out[:want], nil
}

// addReasons adds the reasons for the choice.
func (s *selection) addReasons(r *Request, cands, chosen []candidate, rejected []string, mask gpu.Mask) {
	for _, c := range chosen {
		s.reasons = append(s.reasons, fmt.Sprintf("using %s (%s, %s of %s free)",
			describeDevice(c.Device), describeKind(c.Device), size(c.VRAMFree()), size(c.VRAMTotal)))
		if c.override != "" {
			s.reasons = append(s.reasons, fmt.Sprintf("%s runs code for %s by %s=%s; AMD does not support this", c.Target, c.target, gpu.EnvTargetOverride, c.override))
		}
	}
	for _, c := range cands[len(chosen):] {
		s.reasons = append(s.reasons, fmt.Sprintf("not using %s: %s", describeDevice(c.Device), r.whyNotBest(s.backend, chosen[0], c)))
	}
	for _, why := range rejected {
		s.reasons = append(s.reasons, "not using "+why)
	}
	if !mask.Empty() {
		s.reasons = append(s.reasons, "the masks in the environment were applied first and are translated for the server")
	}
}

// describeKind returns the target, if there is one, and the kind of a device.
func describeKind(d gpu.Device) string {
	kind := "discrete"
	switch {
	case d.Vulkan != nil && d.Vulkan.Software:
		kind = "a software driver that computes on the CPU"
	case d.Integrated:
		kind = "integrated"
	}
	if d.Target != "" {
		return d.Target.String() + ", " + kind
	}
	return kind
}

// droppedOverrides returns the reason that names the overrides which the child's
// environment does not have: under an override, a plan for the device's own target would
// be wrong.
func droppedOverrides(overrides []string) []string {
	if len(overrides) == 0 {
		return nil
	}
	return []string{strings.Join(overrides, ", ") + " in the environment is not passed on to the server; use the option override (--override) to choose the target whose code a card runs"}
}

// whyNotBest returns why c was not chosen before best.
func (r *Request) whyNotBest(backend Backend, best, c candidate) string {
	switch {
	case c.Integrated && !best.Integrated:
		return "it is integrated, and there is a discrete card"
	case r.hasFailed(c, backend) && !r.hasFailed(best, backend):
		return fmt.Sprintf("%s failed on it: %s", backend, r.Verdicts[c.ID()].Failed[backend])
	case !c.native && best.native:
		return "it needs an override and another card does not"
	case c.VRAMFree() < best.VRAMFree():
		return "it has less free memory (" + size(c.VRAMFree()) + ")"
	default:
		return "another card is equally good and comes first"
	}
}

// noneReason returns why no device was chosen.
func noneReason(devices []gpu.Device, rejected []string) string {
	switch {
	case len(rejected) > 0:
		return strings.Join(rejected, "; ")
	case len(devices) == 0:
		return "no AMD GPU was found"
	default:
		return "no device is left"
	}
}

// size formats bytes in MiB or GiB.
func size(b uint64) string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30))
	default:
		return fmt.Sprintf("%.0f MiB", float64(b)/(1<<20))
	}
}
