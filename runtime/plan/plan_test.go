package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

var update = flag.Bool("update", false, "write the golden files anew")

const gib = 1 << 30

// shapes returns a file with the real shapes of a model of the catalogue.
func shapes(t testing.TB, id string) *gguf.File {
	t.Helper()
	for _, k := range ggufgen.Catalogue() {
		if k.ID() != id {
			continue
		}
		path, err := fitcheck.Write(t.TempDir(), k)
		if err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	t.Fatalf("no model %s", id)
	return nil
}

// odd returns a model whose heads are too small for a quantised cache.
func odd(t testing.TB) *gguf.File {
	t.Helper()
	b := ggufgen.New("llama")
	b.Uint("llama.block_count", 2)
	b.Uint("llama.context_length", 512)
	b.Uint("llama.embedding_length", 64)
	b.Uint("llama.attention.head_count", 4)
	b.Uint("llama.vocab_size", 8)
	f, err := os.Create(filepath.Join(t.TempDir(), "odd.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.WriteSparse(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := gguf.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func card(index int, name string, target gfx.Target, total, used uint64) gpu.Device {
	return gpu.Device{
		Index: index, Node: index + 1, Name: name, PCI: "0000:0" + string(rune('3'+index)) + ":00.0", Target: target,
		UniqueID: 0xb85e402c0fb37500 + uint64(index), VRAMTotal: total, VRAMUsed: used, MemoryKnown: true, Visible: true,
	}
}

func xtx(index int) gpu.Device {
	return card(index, "RX 7900 XTX", gfx.GFX1100, 24560*plan.MiB, 30*plan.MiB)
}

func xt(index int) gpu.Device {
	return card(index, "RX 7800 XT", gfx.GFX1101, 16368*plan.MiB, 30*plan.MiB)
}

func raphael(index int) gpu.Device {
	d := card(index, "Raphael", "gfx1036", 512*plan.MiB, 45*plan.MiB)
	d.Integrated, d.UniqueID = true, 0
	return d
}

func request(t testing.TB, id string, devices ...gpu.Device) plan.Request {
	t.Helper()
	return plan.Request{
		Model: shapes(t, id), ModelPath: "/models/" + id + ".gguf", Devices: devices,
		BundleTargets: []gfx.Target{gfx.GFX1100, gfx.GFX1101}, HostTotal: 64 * gib,
	}
}

func make1(t testing.TB, r plan.Request) *plan.Plan {
	t.Helper()
	p, err := plan.Make(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPromisedTable compares the plans with the table that the project promises
// for a card of 16 GB and a context of 4096, with one slot.
func TestPromisedTable(t *testing.T) {
	for _, c := range []struct {
		id       string
		promised float64 // GB, "about"
		fits     bool
	}{
		{"qwen3-8b-Q4_K_M", 5.5, true},
		{"gemma3-4b-Q4_K_M", 3.3, true},
		{"llama3-8b-Q4_K_M", 5.5, true},
		{"qwen3-8b-Q8_0", 9.5, true},
		{"llama3-70b-Q4_K_M", 42, false},
	} {
		t.Run(c.id, func(t *testing.T) {
			r := request(t, c.id, xt(0))
			r.Options.Context, r.Options.Slots = 4096, 1
			p := make1(t, r)
			whole, err := plan.Whole(r.Model, r.Options, 512)
			if err != nil {
				t.Fatal(err)
			}
			// The promise has round numbers, in GiB for some rows and in GB for
			// others; a value within a tenth of either is accepted.
			gb, gb2 := float64(whole.Total())/1e9, float64(whole.Total())/gib
			near := func(v float64) bool { return v > c.promised*0.9 && v < c.promised*1.1 }
			if !near(gb) && !near(gb2) {
				t.Errorf("%.2f GB, %.2f GiB; promised about %v", gb, gb2, c.promised)
			}
			if p.Fits != c.fits || (p.Layers == p.TotalLayers) != c.fits || p.Layers == 0 {
				t.Errorf("fits %v, %d of %d layers", p.Fits, p.Layers, p.TotalLayers)
			}
			d := p.Devices[0]
			if d.Used()+d.Margin > d.Free {
				t.Errorf("%d used and %d margin exceed %d free", d.Used(), d.Margin, d.Free)
			}
		})
	}
}

// TestGolden compares whole plans, as tables and as JSON, with golden files.
func TestGolden(t *testing.T) {
	desktop := xtx(0)
	desktop.VRAMUsed, desktop.ComputeUsed = 1500*plan.MiB, 300*plan.MiB
	for name, change := range map[string]func(*plan.Request){
		"fits":    func(*plan.Request) {},
		"desktop": func(r *plan.Request) { r.Devices = []gpu.Device{desktop, raphael(1)} },
		"context": func(r *plan.Request) { r.Options.Context, r.Options.Slots = 4096, 1 },
		"partial": func(r *plan.Request) { r.Model = shapes(t, "llama3-70b-Q4_K_M"); r.Options.Context = 4096 },
		"mixture": func(r *plan.Request) { r.Model = shapes(t, "qwen3-next-80b-Q4_K_M"); r.Options.Context = 8192 },
		"cpu":     func(r *plan.Request) { r.Devices = nil; r.Options.Context = 4096 },
		"two": func(r *plan.Request) {
			r.Devices = []gpu.Device{xtx(0), xtx(1)}
			r.Options.Devices.Count = 2
			r.Model = shapes(t, "llama3-70b-Q4_K_M")
		},
		"override": func(r *plan.Request) {
			r.Devices = []gpu.Device{card(0, "RX 7600", "gfx1102", 8176*plan.MiB, 20*plan.MiB)}
			r.Options.Devices.Override = plan.OverrideAuto
		},
		"companions": func(r *plan.Request) {
			small := shapes(t, "smollm2-135m-Q8_0")
			r.Options.Projector, r.Projector = "/models/mmproj.gguf", small
			r.Options.Adapters, r.Adapters = []string{"/models/lora.gguf"}, []*gguf.File{small}
			r.Options.Draft, r.Draft = "/models/draft.gguf", small
			r.Options.Context, r.Options.Cache.KeyType, r.Options.Cache.ValueType = 8192, "q8_0", "q8_0"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "qwen3-8b-Q4_K_M", xtx(0))
			change(&r)
			p := make1(t, r)
			var b bytes.Buffer
			if err := p.WriteTable(&b); err != nil {
				t.Fatal(err)
			}
			b.WriteString("\n")
			enc := json.NewEncoder(&b)
			enc.SetIndent("", "  ")
			if err := enc.Encode(p); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("plan differs from %s (-want +got):\n%s", golden, d)
			}
		})
	}
}

// TestMargin checks that memory that HIP does not see is added to the margin of
// --fit.
func TestMargin(t *testing.T) {
	d := xtx(0)
	d.VRAMUsed, d.ComputeUsed = 3000*plan.MiB, 1000*plan.MiB
	r := request(t, "smollm2-135m-Q8_0", d)
	p := make1(t, r)
	if i := slices.Index(p.Args, "--fit-target"); i < 0 || p.Args[i+1] != "3024" {
		t.Errorf("args %q, want a target of 1024 and 2000 MiB", p.Args)
	}
	r.Options.Devices.Margin = 100*plan.MiB + 1
	if p = make1(t, r); p.Args[slices.Index(p.Args, "--fit-target")+1] != "2101" {
		t.Errorf("args %q, want a target rounded up", p.Args)
	}
}

func TestHostLimits(t *testing.T) {
	r := request(t, "llama3-70b-Q4_K_M", xt(0))
	r.HostTotal = 16 * gib
	_, err := plan.Make(r)
	if !errors.Is(err, plan.ErrDoesNotFit) {
		t.Errorf("70B in 16 GiB of host memory: %v", err)
	}
	r.Options.Overcommit = true
	if p := make1(t, r); !strings.Contains(strings.Join(p.Reasons, "\n"), "read from disk repeatedly") {
		t.Errorf("reasons %q", p.Reasons)
	}
	// On the CPU the context is reduced to fit the host's memory.
	r = request(t, "qwen3-8b-Q4_K_M")
	r.HostTotal = 8 * gib
	p := make1(t, r)
	if p.Context >= 40960 || p.Context < 4096 || p.Host.Used()+plan.DefaultMargin > r.HostTotal {
		t.Errorf("context %d, %d used", p.Context, p.Host.Used())
	}
}

func TestOptionErrors(t *testing.T) {
	for name, change := range map[string]func(*plan.Options){
		"context":         func(o *plan.Options) { o.Context = -1 },
		"huge context":    func(o *plan.Options) { o.Context = 1<<30 + 1 },
		"slots":           func(o *plan.Options) { o.Slots = 257 },
		"batch":           func(o *plan.Options) { o.Batch = -5 },
		"layers":          func(o *plan.Options) { o.Layers = -3 },
		"gpus":            func(o *plan.Options) { o.Devices.Count = -1 },
		"cache type":      func(o *plan.Options) { o.Cache.KeyType = "q3_0" },
		"value type":      func(o *plan.Options) { o.Cache.ValueType = "Q8_0" },
		"no flash":        func(o *plan.Options) { o.NoFlashAttention, o.Cache.ValueType = true, "q8_0" },
		"override word":   func(o *plan.Options) { o.Devices.Override = "yes" },
		"override number": func(o *plan.Options) { o.Devices.Override = "11.0" },
		"override part":   func(o *plan.Options) { o.Devices.Override = "11.16.0" },
		"cache ram":       func(o *plan.Options) { o.Cache.HostLimit = math.MaxInt64 },
	} {
		r := request(t, "smollm2-135m-Q8_0", xtx(0))
		change(&r.Options)
		if _, err := plan.Make(r); !errors.Is(err, plan.ErrInvalidOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := request(t, "phi3-mini-Q4_K_M", xtx(0)) // heads of 96
	r.Options.Cache.KeyType = "q8_0"
	if _, err := plan.Make(r); err != nil {
		t.Errorf("heads of 96 in blocks of 32: %v", err)
	}
	r.Model = odd(t)
	if _, err := plan.Make(r); !errors.Is(err, plan.ErrInvalidOption) || !strings.Contains(err.Error(), "multiple of 32, this model's have 16") {
		t.Errorf("heads of 16 in blocks of 32: %v", err)
	}
	if _, err := plan.Make(plan.Request{}); !errors.Is(err, plan.ErrInvalidOption) {
		t.Errorf("no model: %v", err)
	}
}

// TestArguments checks that set options become arguments, and that those that --fit
// may choose are omitted.
func TestArguments(t *testing.T) {
	r := request(t, "smollm2-135m-Q8_0", xtx(0))
	if p := make1(t, r); !slices.Equal(p.Args, []string{"--model", r.ModelPath, "--device", "ROCm0", "--fit", "on", "--fit-target", "1054"}) {
		t.Errorf("default args %q", p.Args)
	}
	r.Options = plan.Options{
		Context: 8192, Slots: 2, Batch: 256, Layers: 12,
		Cache: plan.Cache{KeyType: "q8_0", ValueType: "q4_0", FullSWA: true, HostLimit: 511*plan.MiB + 1},
	}
	want := "--ctx-size 8192 --parallel 2 --kv-unified --ubatch-size 256 --cache-type-k q8_0 --cache-type-v q4_0 --swa-full --cache-ram 512 --device ROCm0 --gpu-layers 12"
	if p := make1(t, r); !strings.Contains(strings.Join(p.Args, " "), want) {
		t.Errorf("args %q", p.Args)
	}
	r.Options = plan.Options{Layers: plan.AllLayers, Cache: plan.Cache{HostLimit: -1}, NoFlashAttention: true, Slots: 2, SplitContext: true}
	want = "--parallel 2 --flash-attn off --cache-ram 0 --device ROCm0 --gpu-layers all"
	if p := make1(t, r); !strings.Contains(strings.Join(p.Args, " "), want) {
		t.Errorf("args %q", p.Args)
	}
	r.HIPBLASLt = []gfx.Target{gfx.GFX1100}
	if p := make1(t, r); slices.Contains(p.Env, "ROCBLAS_USE_HIPBLASLT=0") {
		t.Errorf("hipBLASLt is off though the bundle has it: %q", p.Env)
	}
}
