//go:build linux && amd64

package machine_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// systemBundle writes the directory of a bundle that uses the ROCm of its host.
func systemBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"llama-server", "libggml-hip.so"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-hip-system", Variant: "hip", Flavour: bundle.FlavourSystem, Version: "v0", Entry: bundle.Entry{Program: "llama-server"},
		Targets: []gfx.Target{gfx.GFX1100, gfx.GFX1101},
		Files:   []bundle.File{{Path: "libggml-hip.so", Needed: []string{"librocblas.so.4"}}},
		Host: &bundle.Host{
			ROCm:      "6.4.3",
			Libraries: []bundle.HostLibrary{{SONAME: "librocblas.so.4", NeededBy: []string{"libggml-hip.so"}, Debian: "librocblas4", AMD: "rocblas"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHostROCm plans for a machine with a gfx1100 card, whose ROCm differs.
func TestHostROCm(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	dir := systemBundle(t)
	library := string(elfgen.Spec{SONAME: "librocblas.so.4"}.Bytes())
	const (
		at      = "opt/rocm/lib/"
		kernels = at + "rocblas/library/TensileLibrary_lazy_"
	)
	for name, c := range map[string]struct {
		files map[string]string
		gpu   bool
		says  string // why not, or what the log warns of
	}{
		"nothing":       {nil, false, "librocblas.so.4, needed by libggml-hip.so, is missing; apt-get install librocblas4 (Debian, Ubuntu), or apt-get install rocblas of ROCm 6.x"},
		"other release": {map[string]string{at + "librocblas.so.5": library}, false, "(found /opt/rocm/lib/librocblas.so.5); this bundle was built for ROCm 6.x"},
		"whole":         {map[string]string{at + "librocblas.so.4": library, kernels + "gfx1100.dat": "", kernels + "gfx1101.dat": ""}, true, ""},
		"for this card": {map[string]string{at + "librocblas.so.4": library, kernels + "gfx1100.dat": ""}, true, "has no kernels for gfx1101"},
		"for others":    {map[string]string{at + "librocblas.so.4": library, kernels + "gfx90a.dat": ""}, false, "has no kernels for gfx1100, gfx1101 (/opt/rocm/lib/rocblas/library has those for gfx90a)"},
		"no kernels":    {map[string]string{at + "librocblas.so.4": library}, false, "no kernels beside it"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n"}
			maps.Copy(files, c.files)
			log, logged := warnings()
			m, err := machine.Detect(dir, machine.Config{SysRoot: sysroot.Write(t, "rx7900xtx", files), Log: log})
			if err != nil {
				t.Fatal(err)
			}
			p, err := m.Plan(model, plan.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if p.GPU != c.gpu || (p.Fallback == "") != c.gpu {
				t.Errorf("gpu %v, fallback %q", p.GPU, p.Fallback)
			}
			if said := p.Fallback + logged.String(); !strings.Contains(said, c.says) || (c.says == "" && said != "") {
				t.Errorf("said %q, want %q", said, c.says)
			}
			_, err = m.Plan(model, plan.Options{Devices: plan.Devices{Required: true}})
			if (err == nil) != c.gpu || (err != nil && (!errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), c.says))) {
				t.Errorf("with a GPU required: %v", err)
			}
			if err := m.Simulate(gfx.GFX1100, 24<<30); err == nil {
				if p, err := m.Plan(model, plan.Options{}); err != nil || !p.GPU {
					t.Errorf("the simulated card is not used: %+v, %v", p, err)
				}
			} else if c.gpu {
				t.Errorf("simulate: %v", err)
			}
		})
	}
}
