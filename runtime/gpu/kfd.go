package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

const nodesDir = "sys/class/kfd/kfd/topology/nodes"

// maxNodes limits the topology; the largest machines have a few hundred
// partitions.
const maxNodes = 4096

// properties are the "name number" lines of a topology node.
type properties map[string]uint64

// parseProperties parses a KFD properties file: one name and one non-negative
// decimal number per line. It keeps unknown names, since every kernel version adds
// some.
func parseProperties(b []byte) (properties, error) {
	p := properties{}
	for i, line := range bytes.Split(b, []byte("\n")) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d: %q is not a name and a number", i+1, line)
		}
		n, err := strconv.ParseUint(string(fields[1]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		p[string(fields[0])] = n
	}
	return p, nil
}

// pciAddress returns the address, from the kernel's domain and location_id, which
// is bus<<8 | device<<3 | function.
func (p properties) pciAddress() string {
	l := p["location_id"]
	return fmt.Sprintf("%04x:%02x:%02x.%d", p["domain"], l>>8&0xff, l>>3&0x1f, l&7)
}

// Devices returns the GPUs in the order of the topology, which is the HSA runtime's
// order, and whether this process has permission to use each. It does not apply
// masks (see Mask). A node that cannot be read is left out and named in the joined
// error, which is returned beside the other devices. ErrNoDriver is returned without
// devices.
func (f FS) Devices() ([]Device, error) {
	nodes, err := f.numbered("", nodesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoDriver
	}
	if err != nil {
		return nil, fmt.Errorf("list gpu nodes: %w", err)
	}
	var (
		out  []Device
		errs []error
		next int
	)
	for _, n := range nodes[:min(len(nodes), maxNodes)] {
		d, isGPU, err := f.readNode(n)
		if err != nil {
			errs = append(errs, &NodeError{Node: n, Err: err})
			continue
		}
		if !isGPU {
			continue
		}
		d.Index = -1
		if d.Target != "" {
			d.Index = next
			next++
		}
		out = append(out, d)
	}
	return out, errors.Join(errs...)
}

// readNode reads one topology node; isGPU is false for a CPU.
func (f FS) readNode(n int) (d Device, isGPU bool, err error) {
	dir := strconv.Itoa(n)
	b, err := f.read(nodesDir, dir, "properties")
	if errors.Is(err, fs.ErrPermission) {
		return unreadableNode(n), true, nil
	}
	if err != nil {
		return d, false, err
	}
	p, err := parseProperties(b)
	if err != nil {
		return d, false, fmt.Errorf("properties: %w", err)
	}
	if p["simd_count"] == 0 {
		return d, false, nil
	}
	if v := p["gfx_target_version"]; v > 0xffffffff {
		return d, false, fmt.Errorf("gfx_target_version %d is out of range", v)
	}
	target, err := gfx.FromKFD(uint32(p["gfx_target_version"]))
	if err != nil {
		return d, false, err
	}
	d = Device{
		Node:     n,
		PCI:      p.pciAddress(),
		Vendor:   VendorAMD,
		DeviceID: uint32(p["device_id"]),
		Target:   target,
		UniqueID: p["unique_id"],
	}
	if m := p["drm_render_minor"]; m > 0 && m < 1<<20 {
		d.RenderNode = fmt.Sprintf("/dev/dri/renderD%d", m)
	}
	f.readDRM(&d)
	if !d.MemoryKnown {
		d.VRAMTotal = f.bankBytes(dir)
	}
	d.ComputeUsed = f.computeUsed(dir)
	f.detectIntegrated(&d, p)
	d.Name = f.productName(d)
	d.Visible, d.UnusableReason = f.checkAccess(d)
	return d, true, nil
}

// unreadableNode returns the device for a GPU that this process may not read: KFD
// returns EPERM for a node whose device the control group forbids.
func unreadableNode(n int) Device {
	return Device{
		Node: n, Index: -1, Vendor: VendorAMD, Name: "AMD GPU (not readable)",
		UnusableReason: "the container's device rules do not allow it; pass its render node to the container (--device /dev/dri/renderD…)",
	}
}

// computeUsed returns the memory of a node that KFD's processes use, the sum of
// /sys/class/kfd/kfd/proc/PID/vram_GPUID in bytes. A process that exits during the
// read counts 0.
func (f FS) computeUsed(node string) uint64 {
	const procs = "sys/class/kfd/kfd/proc"
	id, err := f.number(nodesDir, node, "gpu_id")
	if err != nil {
		return 0
	}
	pids, err := f.numbered("", procs)
	if err != nil {
		return 0
	}
	var sum uint64
	for _, pid := range pids {
		n := f.optional(procs, strconv.Itoa(pid), fmt.Sprintf("vram_%d", id))
		if s := sum + n; s >= sum {
			sum = s
		}
	}
	return sum
}

// bankBytes returns the size of a node's frame buffer banks; heap types 1 and 2 are
// public and private device memory.
func (f FS) bankBytes(node string) uint64 {
	banks, err := f.numbered("", nodesDir, node, "mem_banks")
	if err != nil {
		return 0
	}
	var sum uint64
	for _, i := range banks {
		b, err := f.read(nodesDir, node, "mem_banks", strconv.Itoa(i), "properties")
		if err != nil {
			continue
		}
		p, err := parseProperties(b)
		if err != nil || (p["heap_type"] != 1 && p["heap_type"] != 2) {
			continue
		}
		if s := sum + p["size_in_bytes"]; s >= sum {
			sum = s
		}
	}
	return sum
}
