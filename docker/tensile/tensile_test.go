package tensile_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/docker/tensile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestParseName(t *testing.T) {
	for name, want := range map[string]tensile.File{
		"Kernels.so-000-gfx1100.hsaco":                                                                                 {Kind: tensile.Common, Target: gfx.ID{Target: "gfx1100"}},
		"Kernels.so-000-gfx90a-xnack+.hsaco":                                                                           {Kind: tensile.Common, Target: gfx.ID{Target: "gfx90a", XNACK: gfx.On}},
		"TensileLibrary_lazy_gfx1101.dat":                                                                              {Kind: tensile.Index, Target: gfx.ID{Target: "gfx1101"}},
		"TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_gfx1100.co":                                          {Kind: tensile.Kernels, Target: gfx.ID{Target: "gfx1100"}, Type: "SS"},
		"TensileLibrary_Type_HH_HPA_Contraction_l_Alik_Bljk_Cijk_Dijk_gfx1100.dat":                                     {Kind: tensile.Map, Target: gfx.ID{Target: "gfx1100"}, Type: "HH", HPA: true},
		"TensileLibrary_Type_ZZ_Contraction_l_AlikC_BjlkC_Cijk_Dijk_fallback_gfx1101.hsaco":                            {Kind: tensile.Kernels, Target: gfx.ID{Target: "gfx1101"}, Type: "ZZ", Fallback: true},
		"TensileLibrary_Type_I8I_HPA_Contraction_l_Ailk_Bjlk_Cijk_Dijk_fallback.dat":                                   {Kind: tensile.Map, Type: "I8I", HPA: true, Fallback: true},
		"TensileLibrary_Type_DD_ExperimentalDTree_Contraction_l_Ailk_Bjlk_Cijk_Dijk_CU104_gfx90a.co":                   {Kind: tensile.Kernels, Target: gfx.ID{Target: "gfx90a"}, Type: "DD", Variant: "ExperimentalDTree_CU104"},
		"TensileLibrary_Type_HH_HPA_Fp16AltRnz_Fp16Alt_Contraction_l_Ailk_Bjlk_Cijk_Dijk_fallback_gfx90a-xnack-.hsaco": {Kind: tensile.Kernels, Target: gfx.ID{Target: "gfx90a", XNACK: gfx.Off}, Type: "HH", HPA: true, Variant: "Fp16AltRnz_Fp16Alt", Fallback: true},
	} {
		want.Name = name
		got, err := tensile.ParseName(name)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Error(err, d)
		}
		if got.Shared() != (want.Target == gfx.ID{}) {
			t.Errorf("%s: Shared() = %v", name, got.Shared())
		}
		if got.Complex() != (want.Type == "ZZ") || got.Double() != (want.Type == "DD") || got.Integer() != (want.Type == "I8I") {
			t.Errorf("%s: complex %v, double %v, integer %v", name, got.Complex(), got.Double(), got.Integer())
		}
	}
	for _, name := range []string{
		"", "README", "TensileLibrary.dat", "TensileLibrary_gfx1100.dat", "TensileLibrary_lazy_gfx1100.co", "TensileLibrary_lazy_gfx11.dat",
		"Kernels.so-000-gfx1100.co", "TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk.dat", "TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_fallback.co",
		"TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_gfx1100.co.bak", "x/TensileLibrary_lazy_gfx1100.dat", "TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_gfx110000.co",
	} {
		if got, err := tensile.ParseName(name); err == nil {
			t.Errorf("%q was taken for %+v", name, got)
		}
	}
}

// The names are those of Debian's librocblas4 for both of our targets, and of every other form in it.
func TestSelect(t *testing.T) {
	names := dataLines(t, "rocblas-4.4.1-library.txt")
	both := []gfx.Target{gfx.GFX1100, gfx.GFX1101}
	sel, err := tensile.Select(names, both, func(f tensile.File) bool { return f.Complex() || f.Double() || f.Integer() })
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range sel.Keep {
		fmt.Fprintf(&b, "%-7s %-7s %-3s %s\n", f.Kind, f.Target, f.Type, f.Name)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "tensile-keep.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("testdata/tensile-keep.golden (-want +got):\n%s", d)
	}
	if len(sel.Keep)+len(sel.Drop) != len(names) {
		t.Errorf("%d kept, %d dropped, %d in all", len(sel.Keep), len(sel.Drop), len(names))
	}
	all, err := tensile.Select(names, both, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all.Drop {
		if f.Shared() || slices.Contains(both, f.Target.Target) {
			t.Errorf("%s was dropped", f.Name)
		}
	}
	for _, f := range all.Keep {
		if !f.Shared() && !slices.Contains(both, f.Target.Target) {
			t.Errorf("%s was kept", f.Name)
		}
	}
	count := func(target gfx.Target) (n int) {
		for _, f := range all.Keep {
			if f.Target.Target == target {
				n++
			}
		}
		return n
	}
	if a, c := count(gfx.GFX1100), count(gfx.GFX1101); a != 92 || c != 92 {
		t.Errorf("%d files for gfx1100, %d for gfx1101", a, c)
	}
}

func TestSelectRejectsIncompleteDirectories(t *testing.T) {
	names := dataLines(t, "rocblas-4.4.1-library.txt")
	for _, without := range []string{"", "Kernels.so", "lazy", "Type"} {
		want := gfx.Target("gfx1201")
		var some []string
		for _, n := range names {
			if without != "" && strings.Contains(n, "gfx1101") && strings.Contains(n, without) {
				continue
			}
			some = append(some, n)
		}
		targets := []gfx.Target{gfx.GFX1100, want}
		if without != "" {
			targets[1] = gfx.GFX1101
		}
		_, err := tensile.Select(some, targets, nil)
		var te *offload.TargetError
		if !errors.As(err, &te) || !slices.Equal(te.Lacks, targets[1:]) {
			t.Errorf("without %q: %v, want a TargetError for %s", without, err, targets[1])
		}
	}
	if _, err := tensile.Select(append(names, "new-format.zip"), []gfx.Target{gfx.GFX1100}, nil); err == nil {
		t.Error("an unknown file was passed over")
	}
}

func TestSelectionCode(t *testing.T) {
	const ss = "TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_"
	a, b := elfgen.CodeObject(0x41, []string{"x", "y"}, 10), elfgen.CodeObject(0x46, []string{"x"}, 20)
	dir := elfgen.WriteTree(t, map[string]any{
		"Kernels.so-000-gfx1100.hsaco": a, ss + "gfx1100.co": a, ss + "gfx1100.dat": []byte("map"), "TensileLibrary_lazy_gfx1100.dat": []byte("index"),
		"Kernels.so-000-gfx1101.hsaco": b, ss + "gfx1101.co": b, ss + "fallback_gfx1101.hsaco": b, "TensileLibrary_lazy_gfx1101.dat": []byte("index"),
	})
	names := func() (out []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	sel, err := tensile.Select(names(), []gfx.Target{gfx.GFX1101, gfx.GFX1100}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sel.Code(dir)
	want := []offload.CodeObjects{
		{Target: gfx.GFX1100, Objects: 2, Bytes: 2 * int64(len(a)), Kernels: 4},
		{Target: gfx.GFX1101, Objects: 3, Bytes: 3 * int64(len(b)), Kernels: 3},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, wrong := range [][]byte{b, []byte("no code")} {
		if err := os.WriteFile(filepath.Join(dir, ss+"gfx1100.co"), wrong, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := sel.Code(dir); err == nil || !strings.Contains(err.Error(), ss+"gfx1100.co") {
			t.Errorf("wrong code: %v, %v", got, err)
		}
	}
}

func TestDirectories(t *testing.T) {
	s := elfgen.Library("librocblas.so.4")
	s.Sections = []elfgen.Section{
		// The strings of Debian's librocblas.so.4.4, as they follow each other.
		{Name: ".rodata", Flags: elf.SHF_ALLOC, Data: []byte("\x00/rocblas/4.4.1/library\x00/../../Tensile/library\x00/../rocblas/library\x00cannot open library\x00/opt/rocm/lib\x00library\x00/a/library of books\x00")},
		{Name: ".text", Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Data: []byte("\x00/code/library\x00")},
	}
	got, err := tensile.Directories(elfgen.WriteFile(t, "librocblas.so.4", s))
	if d := cmp.Diff([]string{"rocblas/4.4.1/library", "../../Tensile/library", "../rocblas/library"}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err := tensile.Directories(elfgen.WriteFile(t, "x", []byte("text"))); err == nil {
		t.Errorf("a text file gave %v", got)
	}
}

// dataLines returns the lines of testdata/NAME that are not comments.
func dataLines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}
