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
	addr := f.slotName(dir)
	return addr == "" || strings.EqualFold(addr, pci)
}

// slotName returns the PCI address of a device's directory in lower case, empty if it
// has none.
func (f FS) slotName(dir string) string {
	b, err := f.read(dir, "uevent")
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		if addr, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "PCI_SLOT_NAME="); ok {
			return strings.ToLower(addr)
		}
	}
	return ""
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
