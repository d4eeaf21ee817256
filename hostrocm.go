package rocm

import (
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/hostrocm"
)

// takeROCm looks for the ROCm of the host, which a bundle of the system flavour
// needs for GPUs. Without it models run on the CPU, and the plan says why.
func (m *Machine) takeROCm(b *bundle.Manifest) {
	host, err := hostrocm.NewFS(m.settings.sysRoot()).Find(b, m.settings.environ())
	if err != nil {
		m.barred = err.Error()
		return
	}
	m.folders = host.LibraryDirs
	log := m.settings.logger()
	log.Info("using the host's ROCm", "in", host.Location, "release", host.Version)
	for _, note := range host.Notes {
		log.Warn("the host's ROCm", "note", note)
	}
	var without []gfx.Target
	m.Targets = slices.DeleteFunc(slices.Clone(m.Targets), func(t gfx.Target) bool {
		if slices.Contains(host.KernelTargets, t) {
			return false
		}
		without = append(without, t)
		return true
	})
	why := host.MissingKernels(without)
	switch {
	case why == "":
	case len(m.Targets) == 0:
		m.barred = why
	default:
		log.Warn("not every GPU of the bundle can be used", "reason", why)
	}
}
