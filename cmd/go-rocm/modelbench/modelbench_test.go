//go:build linux && amd64

package modelbench_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/modelbench"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// TestCases: what is measured on machines with simulated cards.
func TestCases(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	path, f, err := machine.OpenModel(model)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for name, c := range map[string]struct {
		machine string
		options plan.Options
		quick   bool
		want    []string
		device  string
	}{
		"gfx1100": {"rx7900xtx", plan.Options{}, false, []string{"hip, batch 512", "hip, no flash attention, batch 512", "hip, batch 2048", "cpu, batch 512"}, "0000:03:00.0"},
		"gfx1101, with the code for gfx1100": {"rx7800xt", plan.Options{}, false, []string{
			"hip, batch 512", "hip, no flash attention, batch 512", "hip, batch 2048", "hip, code of 11.0.0, batch 512", "cpu, batch 512",
		}, "0000:03:00.0"},
		"quick":              {"rx7800xt", plan.Options{}, true, []string{"hip, batch 512", "cpu, batch 512"}, "0000:03:00.0"},
		"no card":            {"none", plan.Options{}, false, []string{"cpu, batch 512"}, ""},
		"the CPU":            {"rx7900xtx", plan.Options{Backend: plan.BackendCPU}, false, []string{"cpu, batch 512"}, ""},
		"a GPU is required":  {"rx7900xtx", plan.Options{Devices: plan.Devices{Required: true}}, true, []string{"hip, batch 512"}, "0000:03:00.0"},
		"Vulkan without one": {"rx7900xtx", plan.Options{Backend: plan.BackendVulkan}, false, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine.New(machine.Config{SysRoot: sysroot.Write(t, c.machine, map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n"})})
			m.Targets = []gfx.Target{gfx.GFX1100, gfx.GFX1101}
			cases, device, skipped := modelbench.Cases(m, path, f, c.options, c.quick)
			var got []string
			for _, s := range cases {
				got = append(got, s.String())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if at := address(device); at != c.device {
				t.Errorf("the record is for %q, want %q", at, c.device)
			}
			if c.options.Backend == plan.BackendVulkan && skipped[plan.BackendVulkan] == nil {
				t.Error("no reason why Vulkan is not measured")
			}
		})
	}
}

func address(d *gpu.Device) string {
	if d == nil {
		return ""
	}
	return d.PCI
}

// options returns a short measurement.
func options(model string) modelbench.Options {
	return modelbench.Options{
		Path: model, Depths: []int{0, 64}, Prompt: 32, Answer: 8, Rounds: 2, Progress: func(float64, speed.Settings) {},
		Memory: func([]gpu.Device) (hostFree, gpuFree uint64) { return 8 << 30, 8 << 30 },
	}
}

func defaultCases() []speed.Settings {
	return []speed.Settings{{Backend: "cpu", FlashAttention: true, Batch: speed.DefaultBatch}}
}

// TestRun measures with a server whose speeds are known, and reports its progress.
func TestRun(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{NeverEnds: true, TokenDelay: 10 * time.Millisecond, PromptDelay: 100 * time.Millisecond})
	o := options(model)
	var shares []float64
	o.Progress = func(done float64, _ speed.Settings) { shares = append(shares, done) }
	runs, err := modelbench.Run(t.Context(), o, defaultCases())
	if err != nil || len(runs) != 1 || runs[0].Error != "" {
		t.Fatalf("%+v, %v", runs, err)
	}
	if len(runs[0].Depths) != 2 || runs[0].Depths[0].Tokens != 0 || runs[0].Depths[1].Tokens != 64 {
		t.Fatalf("depths %+v", runs[0].Depths)
	}
	for _, d := range runs[0].Depths {
		if d.Prompt.Count != 2 || d.Generation.Count != 2 || d.Prompt.Mean <= 0 || d.Generation.Mean <= 0 || d.Generation.Mean > 1000/10 {
			t.Errorf("at depth %d: %+v", d.Tokens, d)
		}
	}
	if len(shares) != 6 || shares[5] != 1 || shares[0] <= 0 {
		t.Errorf("progress %v", shares)
	}
}

// TestRunStopsWhenMemoryIsShort: nothing is loaded then, and a shortage while measuring
// ends it.
func TestRunStopsWhenMemoryIsShort(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond, PromptDelay: 10 * time.Millisecond})
	for name, c := range map[string]struct {
		enough    int // checks that find enough memory
		host, gpu uint64
		says      string
	}{
		"at once":            {0, 100 << 20, 8 << 30, "100 MiB of main memory"},
		"the GPU's":          {0, 8 << 30, 64 << 20, "64 MiB of the GPU's memory"},
		"while it is loaded": {2, 100 << 20, 8 << 30, "100 MiB of main memory"},
	} {
		o := options(model)
		checks := 0
		o.Memory = func([]gpu.Device) (hostFree, gpuFree uint64) {
			if checks++; checks <= c.enough {
				return 8 << 30, 8 << 30
			}
			return c.host, c.gpu
		}
		if runs, err := modelbench.Run(t.Context(), o, defaultCases()); !errors.Is(err, modelbench.ErrMemory) || !strings.Contains(err.Error(), c.says) || len(runs) != 0 {
			t.Errorf("%s: %+v, %v", name, runs, err)
		}
	}
}

// TestFailedCaseIsReported: the other cases are measured all the same.
func TestFailedCaseIsReported(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond, PromptDelay: 10 * time.Millisecond})
	o := options(model)
	o.Settings = rocm.Settings{}
	cases := append([]speed.Settings{{Backend: "vulkan", FlashAttention: true, Batch: 512}}, defaultCases()...)
	runs, err := modelbench.Run(t.Context(), o, cases)
	if err != nil || len(runs) != 2 || !strings.Contains(runs[0].Error, "no Vulkan module") || runs[1].Error != "" {
		t.Errorf("%+v, %v", runs, err)
	}
}

// TestWriteSVG: the chart is XML, and text from a file's name cannot break it.
func TestWriteSVG(t *testing.T) {
	s := speed.Sample{Mean: 120, Deviation: 3, Count: 3}
	run := speed.Run{Settings: defaultCases()[0], Depths: []speed.Depth{{Tokens: 4096, Prompt: s, Generation: s}}}
	for _, runs := range [][]speed.Run{nil, {run}} {
		var b strings.Builder
		if err := modelbench.WriteSVG(&b, `a<b>&"c".gguf`, runs); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(b.String()))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, &b)
			}
		}
		if len(runs) > 0 && !strings.Contains(b.String(), "120.0 ± 3.0") {
			t.Errorf("no figure in %s", &b)
		}
	}
}

func TestRemaining(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		elapsed time.Duration
		done    float64
		want    time.Duration
	}{{10 * time.Second, 0.25, 30 * time.Second}, {time.Minute, 1, 0}, {time.Minute, 0, 0}} {
		if got := modelbench.Remaining(start, start.Add(c.elapsed), c.done); got != c.want {
			t.Errorf("%v after %v: %v left", c.done, c.elapsed, got)
		}
	}
}
