package gpu

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// drmDir returns the PCI device directory of d, found by its render node, else by
// its address. It returns "" if the device has no DRM device.
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

// sameAddress reports whether the directory has the PCI address of the topology. A
// render node may have been reassigned to another card since. It returns true for a
// directory without an address.
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

// readDRM sets what the DRM device reports: memory, revision, card and sensors.
func (f FS) readDRM(d *Device) {
	dir := f.drmDir(d)
	if dir == "" {
		return
	}
	d.Revision = uint32(f.optional(dir, "revision"))
	if cards, err := f.numbered("card", dir, "drm"); err == nil && len(cards) > 0 {
		d.Card = fmt.Sprintf("card%d", cards[0])
	}
	f.readMemory(dir, d)
	d.Sensors = f.readSensors(dir)
}

// readMemory reads the driver's memory counters.
func (f FS) readMemory(dir string, d *Device) {
	total, errTotal := f.number(dir, "mem_info_vram_total")
	used, errUsed := f.number(dir, "mem_info_vram_used")
	d.MemoryKnown = errTotal == nil && errUsed == nil
	if d.MemoryKnown {
		d.VRAMTotal, d.VRAMUsed = total, used
	}
	d.GTTTotal = f.optional(dir, "mem_info_gtt_total")
	d.GTTUsed = f.optional(dir, "mem_info_gtt_used")
}

// readSensors reads hwmon: temperatures in thousandths of a degree, power in
// millionths of a watt, clocks in hertz.
func (f FS) readSensors(dir string) Sensors {
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
