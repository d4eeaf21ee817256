package gpu

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxDescriptors limits how many open files of a process are read.
const maxDescriptors = 4096

// ProcessMemory returns the memory in bytes that a process uses on each of the
// devices, by their PCI addresses. It is what the driver reports for the process's
// files (drm-memory-vram in /proc/PID/fdinfo, Documentation/gpu/drm-usage-stats.rst in
// the kernel), or what KFD counts for it, whichever is more: a program uses a card
// through Vulkan or through ROCm. The memory of integrated GPUs is not counted.
//
// The files of a process are readable for its user and for root.
func (f FS) ProcessMemory(pid int, devices []Device) map[string]uint64 {
	out := f.fileMemory(pid)
	for _, d := range devices {
		id, err := f.number(nodesDir, strconv.Itoa(d.Node), "gpu_id")
		if err != nil {
			continue
		}
		n := f.optional("sys/class/kfd/kfd/proc", strconv.Itoa(pid), fmt.Sprintf("vram_%d", id))
		if n > out[d.PCI] {
			out[d.PCI] = n
		}
	}
	return out
}

// fileMemory sums up what the open files of a process report. Files of one client are
// one client: its memory counts once.
func (f FS) fileMemory(pid int) map[string]uint64 {
	out := map[string]uint64{}
	dir := filepath.Join("proc", strconv.Itoa(pid), "fdinfo")
	fds, err := f.numbered("", dir)
	if err != nil {
		return out
	}
	var seen []string
	for _, fd := range fds[:min(len(fds), maxDescriptors)] {
		b, err := f.read(dir, strconv.Itoa(fd))
		if err != nil || !bytes.Contains(b, []byte("drm-pdev:")) {
			continue
		}
		pci, client, bytes := parseFileMemory(b)
		if pci == "" || slices.Contains(seen, pci+" "+client) {
			continue
		}
		seen = append(seen, pci+" "+client)
		out[pci] += bytes
	}
	return out
}

// parseFileMemory reads the "name: value" lines of an fdinfo file.
func parseFileMemory(b []byte) (pci, client string, vram uint64) {
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "drm-pdev":
			pci = value
		case "drm-client-id":
			client = value
		case "drm-memory-vram":
			vram = parseMemory(value)
		}
	}
	return pci, client, vram
}

// parseMemory reads a number with the unit KiB or MiB, or without one: bytes. Other
// text is 0.
func parseMemory(text string) uint64 {
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	shift := map[string]uint{"": 0, "KiB": 10, "MiB": 20}
	by, known := shift[unit]
	if err != nil || !known || n > ^uint64(0)>>by {
		return 0
	}
	return n << by
}
