package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/hostrocm"
)

// CheckCache checks the directories for the unpacked bundle, best first: whether need
// bytes are free, and whether programs may run from there.
func (m Machine) CheckCache(dirs []string, need uint64) Finding {
	var bad []string
	for _, dir := range dirs {
		existing := dir
		for {
			if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
				break
			}
			existing = filepath.Dir(existing)
		}
		disk, err := m.Disk(existing)
		switch {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", dir, err))
		case disk.ReadOnly:
			bad = append(bad, dir+" is not writable")
		case disk.NoExec:
			bad = append(bad, dir+" is mounted noexec")
		case disk.Free < need:
			bad = append(bad, fmt.Sprintf("%s has %s free and the bundle needs %s", dir, formatSize(disk.Free), formatSize(need)))
		default:
			f := Finding{Check: "cache", Status: OK, Detail: fmt.Sprintf("%s, %s free", dir, formatSize(disk.Free))}
			if len(bad) > 0 {
				f.Status = Warning
				f.Detail = strings.Join(bad, "; ") + "; used instead: " + f.Detail
				f.Remedy = cacheRemedy
			}
			return f
		}
	}
	return Finding{"cache", Failure, "no cache directory can be used: " + strings.Join(bad, "; "), cacheRemedy}
}

const cacheRemedy = "free some space, or set GOROCM_CACHE to a directory with enough space from which programs may run"

// CheckTargets checks whether the bundle has code for a GPU of this machine. ok is
// false if the machine has no GPU.
func (m Machine) CheckTargets(targets []gfx.Target) (f Finding, ok bool) {
	all, err := gpu.NewFS(m.Root).Devices()
	if err != nil && len(all) == 0 {
		return f, false // the driver's finding reports it
	}
	var others []string
	related := false
	for _, d := range gpu.NewMask(m.Environ).Apply(all) {
		if !d.Visible {
			continue
		}
		if slices.Contains(targets, d.Target) {
			return Finding{Check: "code", Status: OK, Detail: "the bundle has code for " + d.Target.String()}, true
		}
		others = append(others, d.Target.String())
		overrides := d.Target.OverridesFor(targets)
		related = related || (len(overrides) > 0 && overrides[0].SameISA)
	}
	if len(others) == 0 {
		return f, false
	}
	have := gfx.Join(targets, ", ")
	if have == "" {
		have = "none for GPUs"
	}
	f = Finding{"code", Warning, fmt.Sprintf("the bundle has no code for %s (it has %s); %s", strings.Join(others, ", "), have, fallsBackToCPU), "use a bundle that is built for the GPU"}
	if related {
		f.Remedy = "try --override auto, which runs code for a related target, or " + f.Remedy
	}
	return f, true
}

// CheckROCm checks whether the host has the ROCm libraries that a bundle of the system
// flavour needs. Other bundles need none.
func (m Machine) CheckROCm(b *bundle.Manifest) Finding {
	if b == nil || b.Flavour != bundle.FlavourSystem {
		return Finding{Check: "rocm", Status: OK, Detail: "not needed on the host: the bundle contains its own"}
	}
	host, err := hostrocm.NewFS(m.Root).Find(b, m.Environ)
	var failed *hostrocm.Error
	switch {
	case errors.As(err, &failed):
		return Finding{"rocm", Warning, failed.Detail() + "; " + fallsBackToCPU, failed.Remedy()}
	case err != nil:
		return Finding{"rocm", Warning, err.Error() + "; " + fallsBackToCPU, "use a hermetic bundle"}
	}
	detail := fmt.Sprintf("the bundle's libraries are in %s", host.Location)
	if host.Version != "" {
		detail = fmt.Sprintf("ROCm %s in %s has the bundle's libraries", host.Version, host.Location)
	}
	detail = strings.Join(append([]string{detail}, host.Notes...), "; ")
	var without []gfx.Target
	for _, t := range b.Targets {
		if !slices.Contains(host.KernelTargets, t) {
			without = append(without, t)
		}
	}
	if why, remedy, _ := strings.Cut(host.MissingKernels(without), "; "); why != "" {
		return Finding{"rocm", Warning, detail + "; " + why, remedy}
	}
	return Finding{Check: "rocm", Status: OK, Detail: detail}
}
