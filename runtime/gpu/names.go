package gpu

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// amdgpuIDs is libdrm's list of marketing names: "device, revision, name" in
// hexadecimal, one product per line.
const amdgpuIDs = "usr/share/libdrm/amdgpu.ids"

// productName returns the device's name in libdrm's list or on the board itself, else
// the name of one of the cards that this project supports, else the PCI ids.
func (f FS) productName(d Device) string {
	if b, err := f.read(amdgpuIDs); err == nil && d.Vendor == VendorAMD {
		if name := findProduct(b, d.DeviceID, d.Revision); name != "" {
			return name
		}
	}
	if dir := f.drmDir(&d); dir != "" {
		if b, err := f.read(dir, "product_name"); err == nil && len(b) > 0 {
			return string(b)
		}
	}
	if name := knownProduct(d.DeviceID, d.Revision); name != "" && d.Vendor == VendorAMD {
		return name
	}
	return fmt.Sprintf("%s GPU %04x:%04x", vendorName(d.Vendor), d.Vendor, d.DeviceID)
}

func findProduct(list []byte, device, revision uint32) string {
	for line := range bytes.Lines(list) {
		fields := strings.SplitN(string(line), ",", 3)
		if len(fields) != 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		dev, errDev := strconv.ParseUint(strings.TrimSpace(fields[0]), 16, 32)
		rev, errRev := strconv.ParseUint(strings.TrimSpace(fields[1]), 16, 32)
		if errDev == nil && errRev == nil && uint32(dev) == device && uint32(rev) == revision {
			return strings.TrimSpace(fields[2])
		}
	}
	return ""
}

// knownProduct returns the names of RDNA 3 desktop cards by PCI device and revision,
// as in libdrm's list.
func knownProduct(device, revision uint32) string {
	switch device<<8 | revision&0xff {
	case 0x744cc8:
		return "AMD Radeon RX 7900 XTX"
	case 0x744ccc:
		return "AMD Radeon RX 7900 XT"
	case 0x744cce:
		return "AMD Radeon RX 7900 GRE"
	case 0x747ec8:
		return "AMD Radeon RX 7800 XT"
	case 0x747eff:
		return "AMD Radeon RX 7700 XT"
	case 0x7480cf:
		return "AMD Radeon RX 7600"
	}
	return ""
}
