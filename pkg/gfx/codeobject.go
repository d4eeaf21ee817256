package gfx

import "fmt"

// ELFMachine is e_machine of an AMDGPU code object (EM_AMDGPU).
const ELFMachine = 224

// Fields of e_flags, as LLVM's "User Guide for AMDGPU Backend", section
// "Header", defines them. The feature fields differ between ABI versions.
const (
	flagMach = 0x0ff

	flagXnackV3   = 0x100
	flagSrameccV3 = 0x200

	flagXnackV4     = 0x300
	flagXnackOffV4  = 0x200
	flagXnackOnV4   = 0x300
	flagSrameccV4   = 0xc00
	flagSrameccOff4 = 0x800
	flagSrameccOn4  = 0xc00

	abiV3 = 1 // EI_ABIVERSION of code object version 3
)

// machTarget maps EF_AMDGPU_MACH numbers to processor names (same source).
func machTarget(mach uint32) (Target, bool) {
	if mach < firstMach || int(mach-firstMach) >= len(machNames) {
		return "", false
	}
	t := machNames[mach-firstMach]
	return t, t != ""
}

const firstMach = 0x20

// machNames is indexed by EF_AMDGPU_MACH minus firstMach; "" is reserved. An
// array, so that it is constant data that nobody can alias.
var machNames = [...]Target{
	0x20 - firstMach: "gfx600", 0x21 - firstMach: "gfx601", 0x3a - firstMach: "gfx602",
	0x22 - firstMach: "gfx700", 0x23 - firstMach: "gfx701", 0x24 - firstMach: "gfx702",
	0x25 - firstMach: "gfx703", 0x26 - firstMach: "gfx704", 0x3b - firstMach: "gfx705",
	0x28 - firstMach: "gfx801", 0x29 - firstMach: "gfx802", 0x2a - firstMach: "gfx803",
	0x3c - firstMach: "gfx805", 0x2b - firstMach: "gfx810",
	0x2c - firstMach: "gfx900", 0x2d - firstMach: "gfx902", 0x2e - firstMach: "gfx904",
	0x2f - firstMach: "gfx906", 0x30 - firstMach: "gfx908", 0x31 - firstMach: "gfx909",
	0x32 - firstMach: "gfx90c", 0x3f - firstMach: "gfx90a", 0x40 - firstMach: "gfx940",
	0x4b - firstMach: "gfx941", 0x4c - firstMach: "gfx942", 0x4f - firstMach: "gfx950",
	0x33 - firstMach: "gfx1010", 0x34 - firstMach: "gfx1011", 0x35 - firstMach: "gfx1012",
	0x42 - firstMach: "gfx1013",
	0x36 - firstMach: "gfx1030", 0x37 - firstMach: "gfx1031", 0x38 - firstMach: "gfx1032",
	0x39 - firstMach: "gfx1033", 0x3e - firstMach: "gfx1034", 0x3d - firstMach: "gfx1035",
	0x45 - firstMach: "gfx1036",
	0x41 - firstMach: "gfx1100", 0x46 - firstMach: "gfx1101", 0x47 - firstMach: "gfx1102",
	0x44 - firstMach: "gfx1103",
	0x43 - firstMach: "gfx1150", 0x4a - firstMach: "gfx1151", 0x55 - firstMach: "gfx1152",
	0x58 - firstMach: "gfx1153",
	0x5d - firstMach: "gfx1170", 0x5e - firstMach: "gfx1171", 0x5c - firstMach: "gfx1172",
	0x48 - firstMach: "gfx1200", 0x4e - firstMach: "gfx1201",
	0x49 - firstMach: "gfx1250", 0x5a - firstMach: "gfx1251",
	0x50 - firstMach: "gfx1310",
	0x51 - firstMach: "gfx9-generic", 0x5f - firstMach: "gfx9-4-generic",
	0x52 - firstMach: "gfx10-1-generic", 0x53 - firstMach: "gfx10-3-generic",
	0x54 - firstMach: "gfx11-generic", 0x59 - firstMach: "gfx12-generic",
	0x5b - firstMach: "gfx12-5-generic",
}

// FromELFFlags returns the target id that an AMDGPU code object was compiled
// for, from e_flags and EI_ABIVERSION of its header.
func FromELFFlags(flags uint32, abiVersion uint8) (ID, error) {
	t, ok := machTarget(flags & flagMach)
	if !ok {
		return ID{}, &ParseError{
			Kind: "machine number", Text: fmt.Sprintf("%#x", flags&flagMach),
			Why: "not a processor of EF_AMDGPU_MACH known here",
		}
	}
	id := ID{Target: t}
	if abiVersion <= abiV3 {
		if flags&flagXnackV3 != 0 {
			id.XNACK = On
		}
		if flags&flagSrameccV3 != 0 {
			id.SRAMECC = On
		}
		return id, nil
	}
	switch flags & flagXnackV4 {
	case flagXnackOffV4:
		id.XNACK = Off
	case flagXnackOnV4:
		id.XNACK = On
	}
	switch flags & flagSrameccV4 {
	case flagSrameccOff4:
		id.SRAMECC = Off
	case flagSrameccOn4:
		id.SRAMECC = On
	}
	return id, nil
}

// ELFMach returns the EF_AMDGPU_MACH number of the target, and whether it has
// one known here.
func (t Target) ELFMach() (uint32, bool) {
	if t == "" {
		return 0, false
	}
	for i, name := range machNames {
		if name == t {
			return uint32(i) + firstMach, true
		}
	}
	return 0, false
}
