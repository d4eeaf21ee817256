//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// sysRoot writes the kernel's files of a machine with 64 GiB of memory.
func sysRoot(t *testing.T, name string) string {
	t.Helper()
	return sysroot.Write(t, name, map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n"})
}

const vramUsed = "sys/class/drm/renderD128/device/mem_info_vram_used"

// Card, masks and device are those of the machine, the environment's mask is
// translated, the cache's limit is passed on, and the metrics have the memory that the
// kernel reports as used.
func TestLaunchUsesTheCardOfTheMachine(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{Reply: "a b c"})
	fake.AddGPUModule(t)
	root := sysRoot(t, "dgpu-raphael")
	t.Setenv("HIP_VISIBLE_DEVICES", "0")
	s := rocm.Settings{Bundle: fake.Dir}
	s.SysRoot, s.Cache.HostLimit = root, 100<<20+1
	m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
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

// The model runs on the CPU with one warning, unless the settings require a GPU or a
// number of layers.
func TestFallsBackToCPUWhenGPUCodeFails(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{Reply: "a"})
	fake.AddGPUModule(t)
	fake.Before(t, `case "$*" in *ROCm0*) echo 'error while handling argument "--device": invalid device: ROCm0' >&2; exit 1;; esac`)
	var logged bytes.Buffer
	s := rocm.Settings{Bundle: fake.Dir}
	s.SysRoot, s.Log = sysRoot(t, "rx7900xtx"), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
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
		if _, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s); !errors.Is(err, supervise.ErrNoDevice) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without a usable GPU the reason is logged; if the settings require a GPU, the reason
// is the error.
func TestFallbackIsLogged(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{Reply: "a"})
	fake.AddGPUModule(t)
	var logged bytes.Buffer
	s := rocm.Settings{Bundle: fake.Dir}
	s.SysRoot, s.Log = sysRoot(t, "container-no-render"), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
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
	if _, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), "--device /dev/dri") {
		t.Errorf("required: %v", err)
	}
}

// Without a GPU, a prompt may take longer than the stall timeout while the CPU works
// on it; with a GPU it may not.
func TestSlowPromptIsNoStallOnCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds of stalls; TestSpecFollowsPlanAndSettings and the tests of runtime/supervise check the parts; run mage test")
	}
	for name, want := range map[string]error{"none": nil, "rx7900xtx": supervise.ErrStalled} {
		fake := fakebundle.New(t, fakellama.Script{Reply: "done", PromptDelay: 6 * time.Second, PromptBusy: true})
		fake.AddGPUModule(t)
		s := rocm.Settings{Bundle: fake.Dir}
		s.SysRoot, s.Timeouts.Stall = sysRoot(t, name), 2*time.Second
		m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
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

// llama-server computes the text of an embedding in one batch, by default of 512 tokens.
func TestEmbeddingsFillTheContext(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		change func(*rocm.Settings)
		want   string
	}{
		"embeddings":      {func(s *rocm.Settings) { s.Embeddings, s.Context = true, 3000 }, "--batch-size 3000 --ubatch-size 3000"},
		"reranking":       {func(s *rocm.Settings) { s.Reranking, s.Context = true, 3000 }, "--batch-size 3000 --ubatch-size 3000"},
		"model's context": {func(s *rocm.Settings) { s.Embeddings = true }, "--batch-size 8192 --ubatch-size 8192"},
		"text":            {func(*rocm.Settings) {}, ""},
		"own": {func(s *rocm.Settings) {
			s.Embeddings, s.Args = true, []string{"--ubatch-size", "700"}
		}, "--ubatch-size 700"},
	} {
		s := rocm.Settings{Bundle: fake.Dir}
		tt.change(&s)
		m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
		if err != nil {
			t.Fatal(name, err)
		}
		args := strings.Join(m.Server().Child.Diagnose().Argv, " ")
		if !strings.Contains(args, tt.want) || strings.Count(args, "batch-size") != strings.Count(tt.want, "batch-size") {
			t.Errorf("%s: started as %s; want %q", name, args, tt.want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// No argument of the user is ignored silently.
func TestUnknownArgumentsAreRejected(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	s := rocm.Settings{Bundle: fake.Dir}
	s.Args = []string{"--threads", "1", "--no-such-flag", "7", "--ctx-sise=5", "--metrics", "on"}
	m, err := (&rocm.Backend{}).Load(t.Context(), fake.Model, s)
	if m != nil {
		_ = m.Close()
	}
	if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), `--no-such-flag, --ctx-sise, "on"`) {
		t.Errorf("got %v, want an ErrInvalidOption that names them all", err)
	}
}

// llama-server splits some values at commas; names with commas arrive whole.
func TestNamesWithCommas(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{})
	dir := t.TempDir()
	named := filepath.Join(dir, "zephyr,v2.gguf")
	if err := os.Rename(fake.Model, named); err != nil {
		t.Fatal(err)
	}
	adapters := []string{filepath.Join(dir, "a,b.gguf"), filepath.Join(dir, `c"d,"e.gguf`), filepath.Join(dir, "plain.gguf")}
	for _, path := range adapters {
		b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
		if err == nil {
			err = b.WriteFile(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "t,mp")) // a socket's path is split, too
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "r,un"))
	for _, path := range []string{os.Getenv("TMPDIR"), os.Getenv("XDG_RUNTIME_DIR")} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := rocm.Settings{Bundle: fake.Dir}
	s.Adapters = adapters
	m, err := new(rocm.Backend).Load(t.Context(), named, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	var want []llamaapi.LoRA
	for i, path := range adapters {
		want = append(want, llamaapi.LoRA{ID: i, Path: path, Scale: 1})
	}
	holdsAdapters(t, m, want...)
	props, err := m.Server().Child.HTTPClient().Get(m.Server().Child.BaseURL() + "/props")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = props.Body.Close() }()
	var name struct {
		Alias string `json:"model_alias"`
	}
	if err := json.NewDecoder(props.Body).Decode(&name); err != nil || name.Alias != "zephyr-v2" {
		t.Errorf("served as %q, %v", name.Alias, err)
	}
	for _, alias := range []string{"a,b", " a", "a "} {
		if err := (&rocm.Settings{Alias: alias}).Validate(); !errors.Is(err, rocm.ErrInvalidOption) {
			t.Errorf("the alias %q: %v", alias, err)
		}
	}
	if err := (&rocm.Settings{TCP: "127.0.0.1,0.0.0.0:0"}).Validate(); !errors.Is(err, rocm.ErrInvalidOption) {
		t.Errorf("two hosts: %v", err)
	}
}
