//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// pack packs a bundle whose llama-server runs the script, and then that of the fake bundle.
func pack(t *testing.T, fake *fakebundle.Bundle, script string) string {
	t.Helper()
	return packFiles(t, fake, script, nil, bundle.Manifest{Variant: "cpu"})
}

// packFiles is pack with further files and what the manifest says of them.
func packFiles(t *testing.T, fake *fakebundle.Bundle, script string, files map[string]string, m bundle.Manifest) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server := "#!/bin/sh\n" + script + "\nexec " + fake.Server() + ` "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "llama-server"), []byte(server), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Name, m.Flavour, m.Version, m.Entry.Program = "llama-fake", bundle.FlavourSystem, "v0", "llama-server"
	built, err := bundle.Build(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &packed, dir, built, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fake.tar.zst")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ownCache gives a test a cache of its own.
func ownCache(t *testing.T) {
	t.Helper()
	t.Setenv(userdirs.EnvCache, filepath.Join(t.TempDir(), "cache"))
}

// While a model is loaded, Prune keeps the bundle that its server runs from;
// afterwards Prune removes it.
func TestServerLeasesItsBundle(t *testing.T) {
	ownCache(t)
	fake := fakebundle.New(t, fakellama.Script{})
	m, err := new(rocm.Backend).Load(t.Context(), fake.Model, rocm.Settings{Bundle: pack(t, fake, "")})
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Server().BundleDir
	prune := func(want int) {
		t.Helper()
		removed, err := extract.Prune(t.Context(), extract.PruneOptions{})
		if err != nil || len(removed) != want {
			t.Errorf("removed %+v, %v; want %d", removed, err, want)
		}
	}
	prune(0)
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	prune(1)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
}

// The offsets of the two targets' code in libfat.so of a split pack.
const (
	fatOf1100, fatOf1101 = 8_192, 53_248
	fatSize              = 40_960 // of each
)

// splitPack packs a bundle for gfx1100 and gfx1101: one library has code for both,
// and one file is for each alone. Its llama-server runs the script, and then that of the
// fake bundle.
func splitPack(t *testing.T, fake *fakebundle.Bundle, script string) string {
	t.Helper()
	fat := make([]byte, 98_304)
	copy(fat, "\x7fELF")
	copy(fat[fatOf1100:], bytes.Repeat([]byte("a"), fatSize))
	copy(fat[fatOf1101:], bytes.Repeat([]byte("b"), fatSize))
	files := map[string]string{"libfat.so": string(fat), "k_gfx1100.co": "a", "k_gfx1101.co": "b"}
	return packFiles(t, fake, script, files, bundle.Manifest{
		Variant: "hip", Targets: []gfx.Target{gfx.GFX1100, gfx.GFX1101},
		Files: []bundle.File{
			{Path: "libfat.so", Parts: []bundle.Part{
				{Target: gfx.GFX1100, Extents: bundle.Extents{{Offset: fatOf1100, Size: fatSize}}},
				{Target: gfx.GFX1101, Extents: bundle.Extents{{Offset: fatOf1101, Size: fatSize}}},
			}},
			{Path: "k_gfx1100.co", Target: gfx.GFX1100},
			{Path: "k_gfx1101.co", Target: gfx.GFX1101},
		},
	})
}

// codeFor lists the targets whose code is in the directory of a split pack.
func codeFor(t *testing.T, dir string) string {
	t.Helper()
	fat, err := os.ReadFile(filepath.Join(dir, "libfat.so"))
	if err != nil {
		t.Fatal(err)
	}
	var out []gfx.Target
	for target, at := range map[gfx.Target]int{gfx.GFX1100: fatOf1100, gfx.GFX1101: fatOf1101} {
		_, err := os.Stat(filepath.Join(dir, "k_"+target.String()+".co"))
		if own, part := err == nil, fat[at] != 0; own && !part { // of no target at all the first one's part is there
			t.Errorf("of %s its own file is there, its part of another is not", target)
		} else if own {
			out = append(out, target)
		}
	}
	gfx.Sort(out)
	return gfx.Join(out, ",")
}

// The server's directory has the code for the target that the card will report, also
// where an override makes that differ from the card's own target.
func TestUnpacksCodeOfThePlannedTarget(t *testing.T) {
	for name, c := range map[string]struct {
		machine  string
		override plan.Override
		env      string // of this process
		code     string
		passed   string // to the server
	}{
		"native":                      {"rx7800xt", plan.OverrideOff, "", "gfx1101", ""},
		"forced":                      {"rx7800xt", "11.0.0", "", "gfx1100", "11.0.0"},
		"forced to what it is":        {"rx7800xt", "11.0.1", "", "gfx1101", "11.0.1"},
		"related":                     {"rx7600", plan.OverrideAuto, "", "gfx1100", "11.0.0"},
		"the environment's":           {"rx7800xt", plan.OverrideOff, "11.0.0", "gfx1101", ""},
		"the option's before the env": {"rx7800xt", "11.0.0", "10.3.0", "gfx1100", "11.0.0"},
		"no card":                     {"none", plan.OverrideOff, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakebundle.New(t, fakellama.Script{})
			if c.env != "" {
				t.Setenv("HSA_OVERRIDE_GFX_VERSION", c.env)
			}
			s := rocm.Settings{}
			s.Bundle, s.SysRoot, s.Devices.Override = splitPack(t, fake, ""), sysRoot(t, c.machine), c.override
			srv, err := rocm.Launch(t.Context(), fake.Model, s)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			}()
			if got := codeFor(t, srv.BundleDir); got != c.code || srv.Plan.GPU != (c.code != "") {
				t.Errorf("unpacked for %q, gpu %v; want %q", got, srv.Plan.GPU, c.code)
			}
			var passed []string
			for _, e := range srv.Child.Diagnose().Env {
				if v, ok := strings.CutPrefix(e, "HSA_OVERRIDE_GFX_VERSION="); ok {
					passed = append(passed, v)
				}
			}
			if got := strings.Join(passed, ","); got != c.passed {
				t.Errorf("the server has the override %q, want %q", got, c.passed)
			}
		})
	}
}

// Memory runs out on one card, because another program allocates it. The next plan is
// for the other card, whose code is unpacked before the server starts again.
func TestOtherCardAfterOutOfMemory(t *testing.T) {
	ownCache(t)
	fake := fakebundle.New(t, fakellama.Script{})
	root, once := sysRoot(t, "two-cards"), filepath.Join(t.TempDir(), "once")
	s := rocm.Settings{}
	s.SysRoot = root
	s.Bundle = splitPack(t, fake, fmt.Sprintf(`case "$*" in *--help*) ;; *)
if mkdir %s 2>/dev/null; then
	ls k_*.co >%s/first
	echo 25000000000 >%s
	echo 'ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory' >&2
	exit 1
fi
ls k_*.co >%s/second;;
esac`, once, once, filepath.Join(root, vramUsed), once))
	srv, err := rocm.Launch(t.Context(), fake.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	if srv.Plan.Target != gfx.GFX1101 || !strings.Contains(srv.Plan.Reasons[0], "memory ran out") {
		t.Errorf("planned for %q: %q", srv.Plan.Target, srv.Plan.Reasons)
	}
	for name, want := range map[string]string{"first": "k_gfx1100.co\n", "second": "k_gfx1100.co\nk_gfx1101.co\n"} {
		if got, err := os.ReadFile(filepath.Join(once, name)); err != nil || string(got) != want {
			t.Errorf("the %s start saw %q, %v; want %q", name, got, err, want)
		}
	}
	if got := codeFor(t, srv.BundleDir); got != "gfx1100,gfx1101" {
		t.Errorf("unpacked for %q", got)
	}
	// Only the second unpacking still has a lease on the directory.
	for _, want := range []int{0, 1} {
		removed, err := extract.Prune(t.Context(), extract.PruneOptions{})
		if err != nil || len(removed) != want {
			t.Errorf("removed %+v, %v; want %d", removed, err, want)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A directory that was unpacked for one target is not used on a card of another.
func TestPartlyUnpackedDirectory(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{})
	pack, err := bundle.OpenFile(splitPack(t, fake, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pack.Close() }()
	for _, c := range []struct {
		unpacked []gfx.Target
		machine  string
		gpu      bool
	}{
		{[]gfx.Target{gfx.GFX1100}, "rx7800xt", false},
		{[]gfx.Target{gfx.GFX1100}, "rx7900xtx", true},
		{[]gfx.Target{}, "rx7900xtx", false},
		{nil, "rx7800xt", true},
	} {
		in, err := extract.Extract(t.Context(), pack.Reader, extract.Options{CacheDir: filepath.Join(t.TempDir(), "c"), Targets: c.unpacked})
		if err != nil {
			t.Fatal(err)
		}
		s := rocm.Settings{}
		s.Bundle, s.SysRoot = in.Dir, sysRoot(t, c.machine)
		srv, err := rocm.Launch(t.Context(), fake.Model, s)
		if err != nil {
			t.Fatal(err)
		}
		if srv.Plan.GPU != c.gpu || (srv.Plan.Target != "" && !slices.Contains(in.Targets, srv.Plan.Target)) {
			t.Errorf("unpacked for %v, on %s: planned for %q; %q", c.unpacked, c.machine, srv.Plan.Target, srv.Plan.Reasons)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
}
