package gfx_test

import (
	"errors"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestBundleID(t *testing.T) {
	for _, c := range []struct {
		text string
		want gfx.BundleID
	}{
		{"hipv4-amdgcn-amd-amdhsa--gfx1100", gfx.BundleID{Kind: "hipv4", Triple: "amdgcn-amd-amdhsa-", ID: gfx.ID{Target: "gfx1100"}}},
		{"hip-amdgcn-amd-amdhsa-gfx906", gfx.BundleID{Kind: "hip", Triple: "amdgcn-amd-amdhsa", ID: gfx.ID{Target: "gfx906"}}},
		{"hipv4-amdgcn-amd-amdhsa-unknown-gfx942", gfx.BundleID{Kind: "hipv4", Triple: "amdgcn-amd-amdhsa-unknown", ID: gfx.ID{Target: "gfx942"}}},
		{"hipv4-amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-", gfx.BundleID{Kind: "hipv4", Triple: "amdgcn-amd-amdhsa-", ID: gfx.ID{Target: "gfx90a", SRAMECC: gfx.On, XNACK: gfx.Off}}},
		{"hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+", gfx.BundleID{Kind: "hipv4", Triple: "amdgcn-amd-amdhsa-", ID: gfx.ID{Target: "gfx90a", XNACK: gfx.On}}},
		{"hipv4-amdgcn-amd-amdhsa--gfx11-generic", gfx.BundleID{Kind: "hipv4", Triple: "amdgcn-amd-amdhsa-", ID: gfx.ID{Target: "gfx11-generic"}}},
		{"host-x86_64-unknown-linux--", gfx.BundleID{Kind: "host", Triple: "x86_64-unknown-linux--"}},
		{"host-x86_64-unknown-linux-gnu-", gfx.BundleID{Kind: "host", Triple: "x86_64-unknown-linux-gnu-"}},
	} {
		got, err := gfx.ParseBundleID(c.text)
		if err != nil || got != c.want {
			t.Errorf("ParseBundleID(%q) = %+v, %v, want %+v", c.text, got, err, c.want)
		}
		if got.String() != c.text {
			t.Errorf("%q is written back as %q", c.text, got)
		}
		if got.Host() != (c.want.Kind == "host") {
			t.Errorf("%q: Host() = %v", c.text, got.Host())
		}
	}
}

func TestBundleIDRejects(t *testing.T) {
	for _, s := range []string{
		"", "hip", "host", "host-", "-amdgcn", "gfx1100", "cuda-nvptx64-nvidia-cuda--sm_90", "hip-gfx1100",
		"hipv4-amdgcn-amd-amdhsa--", "hipv4-amdgcn-amd-amdhsa--gfx", "hip-spirv64-amd-amdhsa--amdgcnspirv",
		"hipv4-amdgcn-amd-amdhsa--gfx1100:", "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack", "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack-:xnack+",
		"hipv4-amdgcn-amd-amdhsa--gfx90a::xnack-", "hipv4-amdgcn-amd-amdhsa--gfx90a:tgsplit+",
	} {
		var pe *gfx.ParseError
		if got, err := gfx.ParseBundleID(s); !errors.As(err, &pe) {
			t.Errorf("ParseBundleID(%q) = %+v, %v, want a ParseError", s, got, err)
		}
	}
}

func TestFromELFFlags(t *testing.T) {
	for _, c := range []struct {
		flags uint32
		abi   uint8
		want  string
	}{
		{0x41, 3, "gfx1100"},
		{0x46, 3, "gfx1101"},
		{0x36, 2, "gfx1030"},
		{0x2a, 2, "gfx803"},
		{0x13f | 0x400, 3, "gfx90a"}, // any, any
		{0x23f | 0xc00, 3, "gfx90a:sramecc+:xnack-"},
		{0x33f | 0x800, 2, "gfx90a:sramecc-:xnack+"},
		{0x12f, 1, "gfx906:xnack+"}, // version 3: one bit each
		{0x22f, 1, "gfx906:sramecc+"},
		{0x54 | 1<<24, 4, "gfx11-generic"}, // generic version in the top byte
	} {
		got, err := gfx.FromELFFlags(c.flags, c.abi)
		if err != nil || got.String() != c.want {
			t.Errorf("FromELFFlags(%#x, %d) = %s, %v, want %s", c.flags, c.abi, got, err, c.want)
		}
	}
	for _, mach := range []uint32{0, 0x1f, 0x27, 0x4d, 0x56, 0xfe, 0xff} {
		var pe *gfx.ParseError
		if got, err := gfx.FromELFFlags(mach, 3); !errors.As(err, &pe) {
			t.Errorf("FromELFFlags(%#x) = %s, %v, want a ParseError", mach, got, err)
		}
	}
}

// Every known machine number must name a well-formed target, and lead back.
func TestELFMachTable(t *testing.T) {
	known := map[gfx.Target]bool{}
	for mach := range uint32(0x100) {
		id, err := gfx.FromELFFlags(mach, 3)
		if err != nil {
			continue
		}
		if _, err := gfx.Parse(string(id.Target)); err != nil {
			t.Errorf("machine %#x: %v", mach, err)
		}
		if known[id.Target] {
			t.Errorf("%s has two machine numbers", id.Target)
		}
		known[id.Target] = true
		if back, ok := id.Target.ELFMach(); !ok || back != mach {
			t.Errorf("%s.ELFMach() = %#x, %v, want %#x", id.Target, back, ok, mach)
		}
	}
	if len(known) < 55 {
		t.Errorf("%d machine numbers known, want all of LLVM's list", len(known))
	}
	for _, unknown := range []gfx.Target{"", "gfx1999"} {
		if m, ok := unknown.ELFMach(); ok {
			t.Errorf("%q has machine number %#x", unknown, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"gfx1100", "gfx90a", "gfx11-generic", "gfx9-4-generic", "gfx", "gfx90a:sramecc+:xnack-", "gfx1:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if target, err := gfx.Parse(s); err == nil {
			if string(target) != s {
				t.Fatalf("Parse(%q) = %q", s, target)
			}
			if n := target.KFD(); n != 0 {
				if back, err := gfx.FromKFD(n); err != nil || back != target {
					t.Fatalf("%s -> %d -> %s, %v", target, n, back, err)
				}
			} else if !target.Generic() {
				t.Fatalf("%s has no version and is not generic", target)
			}
		}
		if id, err := gfx.ParseID(s); err == nil {
			if back, err := gfx.ParseID(id.String()); err != nil || back != id {
				t.Fatalf("%q -> %s -> %+v, %v", s, id, back, err)
			}
		}
	})
}

func FuzzBundleID(f *testing.F) {
	for _, s := range []string{
		"hipv4-amdgcn-amd-amdhsa--gfx1100", "hip-amdgcn-amd-amdhsa-gfx906", "host-x86_64-unknown-linux--",
		"hipv4-amdgcn-amd-amdhsa--gfx90a:xnack-:sramecc+", "openmp-amdgcn-amd-amdhsa--gfx1100",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := gfx.ParseBundleID(s)
		if err != nil {
			return
		}
		if back, err := gfx.ParseBundleID(id.String()); err != nil || back != id {
			t.Fatalf("%q -> %q -> %+v, %v", s, id, back, err)
		}
	})
}
