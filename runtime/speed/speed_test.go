package speed_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

func key() speed.Key {
	return speed.Key{
		Card: speed.CardName(gpu.Device{Vendor: gpu.VendorAMD, DeviceID: 0x744c, Revision: 0xc8, Target: "gfx1100"}), Driver: "d", Kernel: "6.12.0",
		Bundle: "b", Architecture: "llama", Quantisation: "Q4_0",
	}
}

// run returns a run with the default settings and the same speed at two depths.
func run(backend string, prompt, generation float64) speed.Run {
	s := speed.Sample{Mean: prompt, Count: 3}
	g := speed.Sample{Mean: generation, Count: 3}
	return speed.Run{
		Settings: speed.Settings{Backend: backend, FlashAttention: true, Batch: speed.DefaultBatch},
		Depths:   []speed.Depth{{0, s, g}, {4096, s, g}},
	}
}

// TestFastest: the time of a prompt and an answer decides, and only runs with default
// settings count.
func TestFastest(t *testing.T) {
	override := run("hip", 1e6, 1e6)
	override.Override = "11.0.0"
	noFlash := run("vulkan", 1e6, 1e6)
	noFlash.FlashAttention = false
	broken := run("cpu", 1e6, 1e6)
	broken.Error = "it crashed"
	for name, c := range map[string]struct {
		runs []speed.Run
		want []string
	}{
		"generation outweighs":   {[]speed.Run{run("hip", 3000, 140), run("vulkan", 2500, 170)}, []string{"vulkan", "hip"}},
		"the prompt outweighs":   {[]speed.Run{run("hip", 3000, 140), run("vulkan", 500, 150)}, []string{"hip", "vulkan"}},
		"other settings":         {[]speed.Run{override, noFlash, run("hip", 100, 10)}, []string{"hip"}},
		"what failed":            {[]speed.Run{broken, run("vulkan", 100, 10)}, []string{"vulkan"}},
		"the better of one":      {[]speed.Run{run("hip", 100, 10), run("hip", 200, 20), run("vulkan", 150, 15)}, []string{"hip", "vulkan"}},
		"a speed of zero":        {[]speed.Run{run("hip", 0, 10)}, nil},
		"nothing":                {nil, nil},
		"not a number is no run": {[]speed.Run{run("hip", 100, -1)}, nil},
	} {
		var got []string
		for _, r := range (speed.Record{Runs: c.runs}).Fastest() {
			got = append(got, r.Backend)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestNewSample(t *testing.T) {
	s := speed.NewSample([]float64{9, 10, 11})
	if s.Mean != 10 || math.Abs(s.Deviation-1) > 1e-9 || s.Count != 3 {
		t.Errorf("%+v", s)
	}
	if s := speed.NewSample(nil); s != (speed.Sample{}) {
		t.Errorf("of nothing: %+v", s)
	}
	if s := speed.NewSample([]float64{7}); s.Mean != 7 || s.Deviation != 0 {
		t.Errorf("of one: %+v", s)
	}
}

// TestStore: a record is found by its whole key only, and damage is no record.
func TestStore(t *testing.T) {
	s := speed.Store{Dir: t.TempDir()}
	r := speed.Record{Key: key(), Time: time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC), Runs: []speed.Run{run("hip", 3000, 140), run("vulkan", 2500, 170)}}
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	got, ok := s.Load(key())
	if d := cmp.Diff(r, got); d != "" || !ok {
		t.Errorf("ok %v (-want +got):\n%s", ok, d)
	}
	if text := got.Describe(); text != "measured on 2026-11-29: vulkan generates 170.0 and reads 2500 tokens/s at depth 4096; hip generates 140.0 and reads 3000 tokens/s at depth 4096" {
		t.Errorf("described as %q", text)
	}
	for name, change := range map[string]func(*speed.Key){
		"card": func(k *speed.Key) { k.Card = "x" }, "driver": func(k *speed.Key) { k.Driver = "x" }, "kernel": func(k *speed.Key) { k.Kernel = "x" },
		"bundle": func(k *speed.Key) { k.Bundle = "x" }, "architecture": func(k *speed.Key) { k.Architecture = "x" }, "quantisation": func(k *speed.Key) { k.Quantisation = "x" },
	} {
		k := key()
		change(&k)
		if _, ok := s.Load(k); ok {
			t.Errorf("a record of another %s is found", name)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 1 {
		t.Errorf("list %+v, %v", all, err)
	}
	files, err := filepath.Glob(filepath.Join(s.Dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for _, damage := range []string{"", "{", `{"card":"x"}`, strings.Repeat("[", 1000)} {
		if err := os.WriteFile(files[0], []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Load(key()); ok {
			t.Errorf("%.10q is a record", damage)
		}
		if all, err := s.List(); err != nil || len(all) != 0 {
			t.Errorf("%.10q is listed: %v, %v", damage, all, err)
		}
	}
}

// TestFailures: a failure is remembered once for each backend, and for a month.
func TestFailures(t *testing.T) {
	s := speed.Store{Dir: t.TempDir()}
	for _, cause := range []string{"gpu hang", "gpu memory fault"} {
		if err := s.AddFailure(key(), "hip", cause); err != nil {
			t.Fatal(err)
		}
	}
	r, ok := s.Load(key())
	if !ok || len(r.Failures) != 1 {
		t.Fatalf("%+v, %v", r, ok)
	}
	if got := r.Failed(time.Now())["hip"]; !strings.HasPrefix(got, "gpu memory fault on 2") {
		t.Errorf("failed: %q", got)
	}
	if got := r.Failed(time.Now().Add(31 * 24 * time.Hour)); len(got) != 0 {
		t.Errorf("after a month: %v", got)
	}
}
