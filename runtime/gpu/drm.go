package gpu

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// drmDir finds the PCI device folder of d: through its render node, else by
// its address. It is empty when the device has no DRM side.
func (f FS) drmDir(d *Device) string {
	if d.RenderNode != "" {
		dir := filepath.Join("sys/class/drm", path.Base(d.RenderNode), "device")
		if f.exists(dir) && f.sameAddress(dir, d.PCI) {
			return dir
		}
	}
	dir := filepath.Join("sys/bus/pci/devices", d.PCI)
	if f.exists(dir) {
		return dir
	}
	return ""
}

// sameAddress compares the folder's PCI address with the one of the topology,
// so that a render node that was given to another card since is not taken for
// this one. A folder that states none passes.
func (f FS) sameAddress(dir, pci string) bool {
	b, err := f.read(dir, "uevent")
	if err != nil {
		return true
	}
	for line := range bytes.Lines(b) {
		if addr, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "PCI_SLOT_NAME="); ok {
			return strings.EqualFold(addr, pci)
		}
	}
	return true
}

// drm fills what the DRM device knows: memory, revision, card and sensors.
func (f FS) drm(d *Device) {
	dir := f.drmDir(d)
	if dir == "" {
		return
	}
	d.Revision = uint32(f.optional(dir, "revision"))
	if cards, err := f.numbered("card", dir, "drm"); err == nil && len(cards) > 0 {
		d.Card = fmt.Sprintf("card%d", cards[0])
	}
	f.memory(dir, d)
	d.Sensors = f.sensors(dir)
}

// memory reads the counters of the driver.
func (f FS) memory(dir string, d *Device) {
	total, errTotal := f.number(dir, "mem_info_vram_total")
	used, errUsed := f.number(dir, "mem_info_vram_used")
	d.MemoryKnown = errTotal == nil && errUsed == nil
	if d.MemoryKnown {
		d.VRAMTotal, d.VRAMUsed = total, used
	}
	d.GTTTotal = f.optional(dir, "mem_info_gtt_total")
	d.GTTUsed = f.optional(dir, "mem_info_gtt_used")
}

// sensors reads hwmon: temperatures in thousandths of a degree, power in
// millionths of a watt, clocks in hertz.
func (f FS) sensors(dir string) Sensors {
	s := Sensors{BusyPercent: float64(f.optional(dir, "gpu_busy_percent"))}
	mons, err := f.numbered("hwmon", dir, "hwmon")
	if err != nil {
		return s
	}
	for _, n := range mons {
		mon := filepath.Join(dir, "hwmon", fmt.Sprintf("hwmon%d", n))
		if name, err := f.read(mon, "name"); err != nil || string(name) != "amdgpu" {
			continue
		}
		for i := 1; i <= 3; i++ {
			label, _ := f.read(mon, fmt.Sprintf("temp%d_label", i)) // without a label the value is not used
			t := float64(f.optional(mon, fmt.Sprintf("temp%d_input", i))) / 1e3
			switch string(label) {
			case "edge":
				s.EdgeCelsius = t
			case "junction":
				s.JunctionCelsius = t
			case "mem":
				s.MemoryCelsius = t
			}
		}
		power := f.optional(mon, "power1_average")
		if power == 0 {
			power = f.optional(mon, "power1_input")
		}
		s.PowerWatts = float64(power) / 1e6
		s.PowerCapWatts = float64(f.optional(mon, "power1_cap")) / 1e6
		s.ShaderMHz = float64(f.optional(mon, "freq1_input")) / 1e6
		s.MemoryMHz = float64(f.optional(mon, "freq2_input")) / 1e6
	}
	return s
}
