package gpu

import "forge.lthn.ai/core/go-rocm/pkg/gfx"

// detectIntegrated decides whether the GPU shares the machine's memory, from the
// best evidence available and never from its name:
//
//   - the format of the driver's gpu_metrics table: revision 1 is for discrete
//     cards, 2 and 3 are for APUs (kgd_pp_interface.h in the kernel);
//   - a topology node with CPU cores and SIMDs is an APU;
//   - the target: LLVM's AMDGPU processor table lists each as dGPU or APU.
func (f FS) detectIntegrated(d *Device, p properties) {
	if f.readMetricsFormat(d) {
		return
	}
	if p["cpu_cores_count"] > 0 {
		d.Integrated, d.Evidence = true, "topology node shared with CPU cores"
		return
	}
	d.Integrated, d.Evidence = isAPUTarget(d.Target), "target "+d.Target.String()
}

// detectIntegratedCard is like detectIntegrated, for a card that KFD does not list. Intel's
// integrated GPU is device 2 of the first bus on every PC; its cards are on others.
func (f FS) detectIntegratedCard(d *Device) {
	switch {
	case f.readMetricsFormat(d):
	case d.Vendor == VendorIntel:
		d.Integrated, d.Evidence = d.PCI == "0000:00:02.0", "PCI address"
	case d.MemoryKnown && d.VRAMTotal == 0:
		d.Integrated, d.Evidence = true, "no memory of its own"
	}
}

// readMetricsFormat sets Integrated from the format of the driver's metrics, and reports
// whether it could.
func (f FS) readMetricsFormat(d *Device) bool {
	if dir := f.drmDir(d); dir != "" {
		if b, err := f.read(dir, "gpu_metrics"); err == nil && len(b) >= 4 {
			switch b[2] {
			case 1:
				d.Integrated, d.Evidence = false, "metrics table of a discrete card"
				return true
			case 2, 3:
				d.Integrated, d.Evidence = true, "metrics table of an APU"
				return true
			}
		}
	}
	return false
}

// isAPUTarget reports whether a target exists in APUs only (LLVM, "User Guide
// for AMDGPU Backend", processor table).
func isAPUTarget(t gfx.Target) bool {
	switch t {
	case "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037",
		"gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153":
		return true
	}
	return false
}
