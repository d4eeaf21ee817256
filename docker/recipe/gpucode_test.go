package recipe

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// EF_AMDGPU_MACH numbers of the targets in tests.
var machines = map[gfx.Target]uint32{"gfx1030": 0x36, "gfx1100": 0x41, "gfx1101": 0x46}

// fat returns a library with code that has the given number of kernels for each target.
func fat(soname string, kernels map[gfx.Target]int) elfgen.Spec {
	var entries []elfgen.Entry
	for _, target := range []gfx.Target{"gfx1030", "gfx1100", "gfx1101"} {
		n, ok := kernels[target]
		var names []string
		for i := range n {
			names = append(names, "kernel"+string(rune('a'+i)))
		}
		if ok {
			entries = append(entries, elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--" + target.String(), Code: elfgen.CodeObject(machines[target], names, 5000)})
		}
	}
	return elfgen.Spec{SONAME: soname, Sections: []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(entries...))}}
}

// directory writes files into a new directory.
func directory(t *testing.T, files map[string]elfgen.Spec) string {
	t.Helper()
	dir := t.TempDir()
	for name, s := range files {
		if err := os.WriteFile(filepath.Join(dir, name), s.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSlim(t *testing.T) {
	type counts = map[gfx.Target]int
	all, equal := counts{"gfx1030": 2, "gfx1100": 3, "gfx1101": 3}, counts{"gfx1100": 1, "gfx1101": 1}
	plain := elfgen.Spec{SONAME: "librocblas.so.4"}
	for _, tc := range []struct {
		name    string
		flavour string
		targets string
		files   map[string]elfgen.Spec
		says    []string // empty: works
	}{
		{"both targets", "", "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all), "librocblas.so.4": fat("librocblas.so.4", equal), "libz.so.1": {SONAME: "libz.so.1"}}, nil},
		{"one target", "", "gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all), "librocblas.so.4": fat("librocblas.so.4", equal)}, nil},
		{"rocBLAS is the host's", bundle.FlavourSystem, "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all)}, nil},
		{"unequal, one of them asked for", "", "gfx1100", map[string]elfgen.Spec{hipModule: fat(hipModule, counts{"gfx1100": 3, "gfx1101": 2}), "librocblas.so.4": fat("librocblas.so.4", equal)}, nil},
		{"unequal in a library that may differ", "", "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all), "librocblas.so.4": fat("librocblas.so.4", equal), "libother.so.1": fat("libother.so.1", counts{"gfx1100": 3, "gfx1101": 2})}, nil},
		{
			"unequal in the HIP module", "", "gfx1100,gfx1101",
			map[string]elfgen.Spec{hipModule: fat(hipModule, counts{"gfx1100": 3, "gfx1101": 2}), "librocblas.so.4": fat("librocblas.so.4", equal)},
			[]string{hipModule, "3 kernels for gfx1100", "2 for gfx1101"},
		},
		{
			"unequal in rocBLAS", "", "gfx1100,gfx1101",
			map[string]elfgen.Spec{hipModule: fat(hipModule, all), "librocblas.so.4": fat("librocblas.so.4", counts{"gfx1100": 1, "gfx1101": 4})},
			[]string{"librocblas.so.4", "1 kernels for gfx1100", "4 for gfx1101"},
		},
		{"no code in rocBLAS", "", "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all), "librocblas.so.4": plain}, []string{rocBLAS, "no GPU code"}},
		{"no rocBLAS", "", "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, all)}, []string{rocBLAS, "no GPU code"}},
		{"no code in the HIP module", bundle.FlavourSystem, "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: {SONAME: hipModule}}, []string{hipModule, "no GPU code"}},
		{"a target is missing", "", "gfx1100,gfx1101", map[string]elfgen.Spec{hipModule: fat(hipModule, counts{"gfx1100": 3})}, []string{hipModule, "gfx1101"}},
		{"a target without a kernel", "", "gfx1100,gfx1101", map[string]elfgen.Spec{"libother.so.1": fat("libother.so.1", counts{"gfx1100": 3, "gfx1101": 0})}, []string{"libother.so.1", "no GPU code for gfx1101"}},
		{"code for another target alone", "", "gfx1100", map[string]elfgen.Spec{hipModule: fat(hipModule, counts{"gfx1030": 3})}, []string{hipModule, "gfx1100"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &collector{variant: Variant{Name: "hip", Flavour: tc.flavour}, targets: targets(t, strings.Split(tc.targets, ",")...), dir: directory(t, tc.files)}
			err := c.slim()
			if (err == nil) != (len(tc.says) == 0) {
				t.Fatalf("%v", err)
			}
			for _, s := range tc.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not name %q: %v", s, err)
				}
			}
			if err == nil {
				sameRecord(t, c)
			}
		})
	}
}

// sameRecord compares the record of a collector with the files in its directory.
func sameRecord(t *testing.T, c *collector) {
	t.Helper()
	var want []bundle.CodeObjects
	names, err := elfFiles(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		objects, err := offload.ReadCodeObjects(name)
		if err != nil && !errors.Is(err, offload.ErrNoFatBinary) {
			t.Fatal(err)
		}
		for _, o := range objects {
			if !slices.Contains(c.targets, o.Target) {
				t.Errorf("%s still has code for %s", name, o.Target)
			}
			want = append(want, bundle.CodeObjects{File: filepath.Base(name), Target: o.Target, Bytes: o.Bytes, Kernels: o.Kernels})
		}
	}
	if d := cmp.Diff(want, c.objects); d != "" {
		t.Errorf("recorded: %s", d)
	}
}
