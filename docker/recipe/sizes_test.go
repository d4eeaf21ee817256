package recipe

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestCheckSize(t *testing.T) {
	one, both := []string{"gfx1100"}, []string{"gfx1100", "gfx1101"}
	onOne := func(all, target int64) map[string]int64 { return map[string]int64{"all": all, "gfx1100": target} }
	recorded := map[string]Sizes{"hip": {Packed: 1000, Unpacked: 10000, Targets: one, Disk: onOne(5000, 4000)}}
	for name, tc := range map[string]struct {
		variant string
		now     Sizes
		what    string // empty: fits
		bar     bool
	}{
		"same":                     {"hip", Sizes{Packed: 1000, Unpacked: 10000, Targets: one, Disk: onOne(5000, 4000)}, "", false},
		"3 % more":                 {"hip", Sizes{Packed: 1030, Unpacked: 10300, Targets: one, Disk: onOne(5150, 4120)}, "", false},
		"smaller":                  {"hip", Sizes{Packed: 10, Unpacked: 100, Targets: one, Disk: onOne(50, 40)}, "", false},
		"packed too large":         {"hip", Sizes{Packed: 1031, Unpacked: 10000, Targets: one}, "packed", false},
		"unpacked too large":       {"hip", Sizes{Packed: 1000, Unpacked: 10301, Targets: one}, "unpacked", false},
		"too large on disk":        {"hip", Sizes{Targets: one, Disk: onOne(5151, 4000)}, "on disk with all its code", false},
		"too large for one target": {"hip", Sizes{Targets: one, Disk: onOne(5000, 4121)}, "on disk for gfx1100", false},
		"nothing recorded on disk": {"hip", Sizes{Targets: one, Disk: map[string]int64{"gfx1102": 1}}, "on disk for gfx1102", false},
		"other targets":            {"hip", Sizes{Packed: 5000, Unpacked: 50000, Targets: both}, "", false},
		"no record":                {"cpu", Sizes{Packed: 5000, Unpacked: 50000}, "", false},

		"hip at its bars":           {"hip", Sizes{Packed: 115e6, Targets: both, Disk: map[string]int64{"all": 115e7, "gfx1100": 8e8, "gfx1101": 8e8}}, "", false},
		"hip over packed":           {"hip", Sizes{Packed: 115e6 + 1, Targets: both}, "packed", true},
		"hip over for both":         {"hip", Sizes{Targets: both, Disk: map[string]int64{"all": 115e7 + 1}}, "on disk with all its code", true},
		"hip over for the first":    {"hip", Sizes{Targets: both, Disk: map[string]int64{"gfx1100": 8e8 + 1}}, "on disk for gfx1100", true},
		"hip over for the second":   {"hip", Sizes{Targets: both, Disk: map[string]int64{"gfx1101": 8e8 + 1}}, "on disk for gfx1101", true},
		"one target over its bar":   {"hip", Sizes{Targets: one, Disk: onOne(0, 8e8+1)}, "on disk for gfx1100", true},
		"hip for more targets":      {"hip", Sizes{Packed: 2e8, Targets: []string{"gfx1030", "gfx1100", "gfx1101"}}, "", false},
		"cpu at its bar":            {"cpu", Sizes{Packed: 12e6}, "", false},
		"cpu over its bar":          {"cpu", Sizes{Packed: 12e6 + 1}, "packed", true},
		"a variant without a bar":   {"hip-system", Sizes{Packed: 2e8, Targets: both}, "", false},
		"the bar before the record": {"hip", Sizes{Packed: 2e8, Targets: one}, "packed", true},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckSize(recorded, tc.variant, tc.now)
			var size *SizeError
			if errors.As(err, &size) != (tc.what != "") {
				t.Fatalf("got %v", err)
			}
			if size != nil && (size.What != tc.what || size.Fixed != tc.bar || strings.Contains(size.Error(), "accept it") == tc.bar) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckTensile(t *testing.T) {
	both := []string{"gfx1100", "gfx1101"}
	count := func(first, second TensileCount) map[string]TensileCount {
		return map[string]TensileCount{"gfx1100": first, "gfx1101": second, "shared": {Files: 24}}
	}
	old := count(TensileCount{58, 5766}, TensileCount{58, 3237})
	recorded := map[string]Sizes{"hip": {Targets: both, Tensile: old}}
	for name, tc := range map[string]struct {
		targets []string
		now     map[string]TensileCount
		says    string // empty: fits
	}{
		"same":            {both, old, ""},
		"other targets":   {both[:1], nil, ""},
		"a file less":     {both, count(TensileCount{58, 5766}, TensileCount{57, 3237}), "(gfx1101: 57 files with 3237 kernels, recorded are 58 with 3237)"},
		"a kernel less":   {both, count(TensileCount{58, 5765}, TensileCount{58, 3237}), "(gfx1100: 58 files with 5765 kernels, recorded are 58 with 5766)"},
		"a kernel more":   {both, count(TensileCount{58, 5766}, TensileCount{58, 3238}), "accept it with `mage lock`"},
		"a target is out": {both, map[string]TensileCount{"gfx1100": {58, 5766}, "shared": {24, 0}}, "gfx1101: 0 files with 0 kernels"},
		"none":            {both, nil, "shared: 0 files with 0 kernels, recorded are 24 with 0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckTensile(recorded, "hip", Sizes{Targets: tc.targets, Tensile: tc.now})
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := CheckTensile(map[string]Sizes{"hip": {Targets: both}}, "hip", Sizes{Targets: both, Tensile: old}); err == nil {
		t.Error("kernels that nobody recorded were accepted")
	}
}

// Recorded are the contents of a bundle and the disk space that it needs unpacked.
func TestSizesOfABundle(t *testing.T) {
	files := map[string]int{ // bytes
		"llama-server": 5000,
		"rocblas/4.4.1/library/TensileLibrary_lazy_gfx1100.dat":                                                 4096,
		"rocblas/4.4.1/library/TensileLibrary_lazy_gfx1101.dat":                                                 4097,
		"rocblas/4.4.1/library/Kernels.so-000-gfx1100.hsaco":                                                    1,
		"rocblas/4.4.1/library/TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_fallback.dat":           10,
		"rocblas/4.4.1/library/TensileLibrary_Type_SS_Contraction_l_Ailk_Bljk_Cijk_Dijk_fallback_gfx1101.hsaco": 9000,
	}
	dir := t.TempDir()
	for name, size := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, bytes.Repeat([]byte(name), size)[:size], 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	index := "rocblas/4.4.1/library/TensileLibrary_lazy_"
	m, err := bundle.Build(dir, bundle.Manifest{
		Schema: bundle.Schema, Name: "llama-hip", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v1",
		Targets: []gfx.Target{"gfx1100", "gfx1101"}, Entry: bundle.Entry{Loader: "llama-server", Program: "llama-server"},
		CodeObjects: []bundle.CodeObjects{
			{File: "llama-server", Target: "gfx1100", Kernels: 9},
			{File: index + "gfx1100.dat", Target: "gfx1100", Kernels: 7},
			{File: index + "gfx1101.dat", Target: "gfx1101", Kernels: 5},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	pack := filepath.Join(t.TempDir(), "pack")
	f, err := os.Create(pack)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := bundle.Pack(t.Context(), f, dir, m, bundle.PackOptions{})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := (&Packed{File: pack, Manifest: m, Size: stats.Packed}).Sizes()
	if err != nil {
		t.Fatal(err)
	}
	const block = 4096
	want := Sizes{
		Packed: stats.Packed, Unpacked: 5000 + 4096 + 4097 + 1 + 10 + 9000, Targets: []string{"gfx1100", "gfx1101"},
		Disk:    map[string]int64{"all": (2 + 1 + 2 + 1 + 1 + 3) * block, "gfx1100": (2 + 1 + 1 + 1) * block, "gfx1101": (2 + 2 + 1 + 3) * block},
		Tensile: map[string]TensileCount{"gfx1100": {2, 7}, "gfx1101": {2, 5}, "shared": {1, 0}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := (&Packed{File: filepath.Join(dir, "gone"), Manifest: m}).Sizes(); err == nil {
		t.Error("a pack that is not there has sizes")
	}
}

func TestSizesRoundTrip(t *testing.T) {
	all := map[string]Sizes{
		"cpu": {Packed: 1, Unpacked: 2, Disk: map[string]int64{"all": 3}},
		"hip": {Packed: 3, Unpacked: 4, Disk: map[string]int64{"all": 6, "gfx1100": 5}, Targets: []string{"gfx1100"}, Tensile: map[string]TensileCount{"gfx1100": {7, 8}}},
	}
	b, err := FormatSizes(all)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSizes(b)
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, wrong := range []string{`{"cpu":{"packd":1}}`, `{"hip":{"tensile":{"gfx1100":{"file":1}}}}`, `{"cpu":{"packed":1}} {}`, `{"cpu":{"packed":1}}}`} {
		if got, err := ParseSizes([]byte(wrong)); err == nil {
			t.Errorf("%s was accepted: %v", wrong, got)
		}
	}
}

// The record in the source tree is complete and within the limits.
func TestRecordedSizes(t *testing.T) {
	recorded, err := RecordedSizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"cpu", "hip", "hip-system"} {
		s, ok := recorded[variant]
		if err := CheckSize(recorded, variant, s); err != nil || !ok {
			t.Errorf("%s: %v, recorded %t", variant, err, ok)
		}
		for _, key := range append([]string{allTargets}, s.Targets...) {
			if s.Disk[key] <= 0 {
				t.Errorf("%s: nothing is recorded on disk for %s", variant, key)
			}
			if c := s.Tensile[key]; variant == "hip" && key != allTargets && (c.Files <= 0 || c.Kernels <= 0) {
				t.Errorf("%s: no Tensile files are recorded for %s", variant, key)
			}
		}
	}
}

func TestCheckFileSize(t *testing.T) {
	both, third := []string{"gfx1100", "gfx1101"}, []string{"gfx1100", "gfx1101", "gfx1102"}
	for _, tc := range []struct {
		variant    string
		targets    []string
		deb, image int64 // the largest sizes that are accepted, 0: any
	}{
		{"hip", both, 112_000_000, 118_000_000},
		{"hip", both[:1], 112_000_000, 118_000_000},
		{"hip", third, 0, 0},
		{"hip-system", both, 0, 0},
		{"vulkan", nil, 18_000_000, 26_000_000},
		{"cpu", nil, 12_000_000, 20_000_000},
	} {
		for what, check := range map[string]struct {
			limit int64
			size  func(string, []string, int64) error
		}{"Debian package": {tc.deb, CheckPackageSize}, "container image": {tc.image, CheckImageSize}} {
			if check.limit == 0 {
				if err := check.size(tc.variant, tc.targets, 1<<40); err != nil {
					t.Errorf("%s for %v as a %s: %v", tc.variant, tc.targets, what, err)
				}
				continue
			}
			if err := check.size(tc.variant, tc.targets, check.limit); err != nil {
				t.Errorf("%s as a %s: %v", tc.variant, what, err)
			}
			if err := check.size(tc.variant, tc.targets, check.limit+1); err == nil || !strings.Contains(err.Error(), "as a "+what) {
				t.Errorf("%s as a %s with a byte more: %v", tc.variant, what, err)
			}
		}
	}
}
