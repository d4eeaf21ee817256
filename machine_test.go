//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// sysRoot unpacks a machine of runtime/gpu's tests, with 64 GiB of memory.
func sysRoot(t *testing.T, name string) string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("runtime", "gpu", "testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	a.Files = append(a.Files, txtar.File{Name: "proc/meminfo", Data: []byte("MemTotal: 67108864 kB\n")})
	for _, f := range a.Files {
		path, isHex := strings.CutSuffix(filepath.Join(root, f.Name), ".hex")
		data := f.Data
		if isHex {
			if data, err = hex.DecodeString(strings.Join(strings.Fields(string(data)), "")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// withGPUCode gives the imitation's directory a GPU module for both targets, and
// replaces its llama-server by a script when there is one.
func withGPUCode(t *testing.T, script string) {
	t.Helper()
	dir := os.Getenv(locate.EnvBundle)
	module := elfgen.Spec{Sections: []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: "host-x86_64-unknown-linux-gnu-"},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(0x41, []string{"k"}, 10)},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1101", Code: elfgen.CodeObject(0x46, []string{"k"}, 10)},
	))}}
	if err := os.WriteFile(filepath.Join(dir, "libggml-hip.so"), module.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if script == "" {
		return
	}
	server := filepath.Join(dir, "llama-server")
	if err := os.Remove(server); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(server, []byte("#!/bin/sh\n"+script+"\nexec "+os.Args[0]+` "$@"`+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

const vramUsed = "sys/class/drm/renderD128/device/mem_info_vram_used"

// TestOnADescribedMachine: card, masks and device are those of the machine, the
// environment's mask is translated, the cache's limit is passed on, and metrics
// follow what the kernel says is used.
func TestOnADescribedMachine(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Reply: "a b c"})
	withGPUCode(t, "")
	root := sysRoot(t, "dgpu-raphael")
	t.Setenv("HIP_VISIBLE_DEVICES", "0")
	s := rocm.Settings{}
	s.SysRoot, s.Cache.HostLimit = root, 100<<20+1
	m, err := (&rocm.Backend{}).Load(t.Context(), model, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	p := m.Server().Plan
	args := strings.Join(p.Args, " ")
	if !p.GPU || !p.Fits || !strings.Contains(args, "--device ROCm0") || !strings.Contains(args, "--cache-ram 101") {
		t.Errorf("gpu %v, fits %v, %s", p.GPU, p.Fits, args)
	}
	if !slices.Contains(p.Env, "ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb3757f") || !slices.Contains(p.Env, "ROCBLAS_USE_HIPBLASLT=0") {
		t.Errorf("env %q", p.Env)
	}
	for _, used := range []struct{ now, peak uint64 }{{1306214400, 1306214400}, {9 << 30, 9 << 30}, {2 << 30, 9 << 30}} {
		if err := os.WriteFile(filepath.Join(root, vramUsed), []byte(strconv.FormatUint(used.now, 10)), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = collect(m.Generate(t.Context(), "x"))
		if g := m.Metrics(); m.Err() != nil || g.ActiveMemoryBytes != used.now || g.PeakMemoryBytes != used.peak {
			t.Errorf("active %d, peak %d, want %+v: %v", g.ActiveMemoryBytes, g.PeakMemoryBytes, used, m.Err())
		}
	}
}

// TestGPUThatDoesNotComeUp: the CPU is used and said so once, unless a GPU is
// required or layers were asked for by number.
func TestGPUThatDoesNotComeUp(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Reply: "a"})
	withGPUCode(t, `case "$*" in *ROCm0*) echo 'error while handling argument "--device": invalid device: ROCm0' >&2; exit 1;; esac`)
	var logged bytes.Buffer
	s := rocm.Settings{}
	s.SysRoot, s.Log = sysRoot(t, "rx7900xtx"), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := (&rocm.Backend{}).Load(t.Context(), model, s)
	if err != nil {
		t.Fatal(err)
	}
	p := m.Server().Plan
	if p.GPU || !strings.Contains(p.Reasons[0], "did not start") || strings.Count(logged.String(), "running on the CPU") != 1 {
		t.Errorf("gpu %v, %q, said %s", p.GPU, p.Reasons, &logged)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]plan.Options{
		"required": {Devices: plan.Devices{Required: true}},
		"by count": {Layers: plan.AllLayers},
	} {
		s.Options = o
		if _, err := (&rocm.Backend{}).Load(t.Context(), model, s); !errors.Is(err, supervise.ErrNoDevice) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFallbackIsSaid: without a GPU that can be used the reason is logged, and
// with one required it is the error.
func TestFallbackIsSaid(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Reply: "a"})
	withGPUCode(t, "")
	var logged bytes.Buffer
	s := rocm.Settings{}
	s.SysRoot, s.Log = sysRoot(t, "container-no-render"), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := (&rocm.Backend{}).Load(t.Context(), model, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if said := logged.String(); strings.Count(said, "running on the CPU") != 1 || !strings.Contains(said, "--device /dev/dri") {
		t.Errorf("said %s", said)
	}
	s.Devices.Required = true
	if _, err := (&rocm.Backend{}).Load(t.Context(), model, s); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), "--device /dev/dri") {
		t.Errorf("required: %v", err)
	}
}

// TestSlowPrompt: a prompt may take longer than a stall where the CPU works on
// it, for want of a GPU; beside a GPU it may not.
func TestSlowPrompt(t *testing.T) {
	for name, want := range map[string]error{"none": nil, "rx7900xtx": supervise.ErrStalled} {
		model := fakebundle.Use(t, fakellama.Script{Reply: "done", PromptDelay: 12 * time.Second, PromptBusy: true})
		withGPUCode(t, "")
		s := rocm.Settings{}
		s.SysRoot, s.Timeouts.Stall = sysRoot(t, name), 4*time.Second
		m, err := (&rocm.Backend{}).Load(t.Context(), model, s)
		if err != nil {
			t.Fatal(err)
		}
		got := text(collect(m.Generate(t.Context(), "x")))
		if err := m.Err(); !errors.Is(err, want) || (want == nil && (err != nil || got != "done")) {
			t.Errorf("%s: %q, %v; want %v", name, got, err, want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestImaginedCard: a machine is planned for that is not there.
func TestImaginedCard(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	t.Setenv("ROCR_VISIBLE_DEVICES", "")
	s := rocm.Settings{}
	s.SysRoot = sysRoot(t, "none")
	m, err := machine.Detect("", machine.Config{SysRoot: s.SysRoot})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Simulate(gfx.GFX1101, 16<<30); err != nil {
		t.Fatal(err)
	}
	p, err := m.Plan(model, plan.Options{})
	if err != nil || !p.Fits || p.Devices[0].Total != 16<<30 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := rocm.Plan(model, s); err != nil || p.GPU {
		t.Errorf("this machine: %+v, %v", p, err)
	}
	withGPUCode(t, "")
	if m, err = machine.Detect("", machine.Config{SysRoot: s.SysRoot}); err != nil {
		t.Fatal(err)
	}
	if err := m.Simulate("gfx90a", 64<<30); !errors.Is(err, rocm.ErrInvalidOption) {
		t.Errorf("a card without code: %v", err)
	}
}

// TestDiscoverPlans: a library caller gets the list with what fits, and may
// stop in the middle of it.
func TestDiscoverPlans(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	withGPUCode(t, "")
	s := rocm.Settings{}
	s.SysRoot = sysRoot(t, "rx7800xt")
	m, err := machine.Detect("", machine.Config{SysRoot: s.SysRoot})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(model)
	if err := os.WriteFile(filepath.Join(dir, "z.gguf"), []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	var found []machine.FoundModel
	for f := range m.Discover(t.Context(), dir, plan.Options{}) {
		found = append(found, f)
	}
	if len(found) != 2 || found[0].Path != model || !found[0].Fits || found[0].Verdict != "fits" || found[0].Layers != found[0].TotalLayers || found[1].Loadable || found[1].Why == "" {
		t.Errorf("%+v", found)
	}
	for range m.Discover(t.Context(), dir, plan.Options{}) {
		break
	}
}

// TestMemoryOfThisMachine: whatever is here, the sums agree with the list.
func TestMemoryOfThisMachine(t *testing.T) {
	devices, err := machine.Devices()
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for _, d := range devices {
		if d.Visible {
			want += d.VRAMTotal
			if d.Integrated {
				want += d.GTTTotal
			}
		}
	}
	total, err := machine.TotalMemory()
	if err != nil || total != want {
		t.Errorf("total %d, want %d: %v", total, want, err)
	}
	if active, err := machine.UsedMemory(); err != nil || active > total {
		t.Errorf("active %d of %d: %v", active, total, err)
	}
}
