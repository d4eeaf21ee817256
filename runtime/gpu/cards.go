package gpu

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Cards returns every GPU with a render node: those of Devices, in their order, then
// those that KFD does not list, in the order of their render nodes: the cards of other
// vendors, and AMD cards without KFD. HIP cannot use the latter (Index and Node are
// -1), a Vulkan driver may. Errors are those of Devices; ErrNoDriver is returned only
// if there is no card at all.
func (f FS) Cards() ([]Device, error) {
	out, err := f.Devices()
	minors, listErr := f.numbered("renderD", "sys/class/drm")
	if listErr != nil {
		return out, err // no driver has a render node
	}
	known := map[string]bool{}
	for _, d := range out {
		known[strings.ToLower(d.PCI)] = true
	}
	for _, minor := range minors {
		d, ok := f.renderDevice(minor)
		if !ok || known[d.PCI] {
			continue
		}
		known[d.PCI] = true
		out = append(out, d)
	}
	if len(out) > 0 && errors.Is(err, ErrNoDriver) {
		err = nil
	}
	return out, err
}

// renderDevice reads the PCI device of a render node.
func (f FS) renderDevice(minor int) (d Device, ok bool) {
	name := fmt.Sprintf("renderD%d", minor)
	dir := filepath.Join("sys/class/drm", name, "device")
	vendor, err := f.number(dir, "vendor")
	if err != nil {
		return d, false // not on the PCI bus, such as a virtual driver
	}
	d = Device{
		Node: -1, Index: -1, Vendor: uint32(vendor), DeviceID: uint32(f.optional(dir, "device")),
		PCI: f.slotName(dir), RenderNode: "/dev/dri/" + name,
	}
	if d.PCI == "" {
		return d, false
	}
	f.readDRM(&d)
	f.detectIntegratedCard(&d)
	d.Name = f.productName(d)
	d.UnusableReason = "the kernel's compute driver (KFD) does not list it, so HIP cannot use it"
	if d.Vendor != VendorAMD {
		d.UnusableReason = "it is no AMD GPU, so HIP cannot use it"
	}
	return d, true
}

// vendorName returns the name of the vendor of a PCI device.
func vendorName(vendor uint32) string {
	switch vendor {
	case VendorAMD:
		return "AMD"
	case VendorNVIDIA:
		return "NVIDIA"
	case VendorIntel:
		return "Intel"
	case VendorVirtio:
		return "virtual"
	}
	return "unknown"
}
