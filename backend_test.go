//go:build linux && amd64

package rocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestLoadOptionsTakeEffect(t *testing.T) {
	m := load(t, fakellama.Script{}, inference.WithParallelSlots(3), inference.WithContextLen(600), inference.WithGPULayers(0))
	props, err := m.API().Props(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if props.TotalSlots != 3 || m.Slots() != 3 {
		t.Errorf("%d slots, the model says %d", props.TotalSlots, m.Slots())
	}
	args := strings.Join(m.Server().Child.Diagnose().Argv, " ")
	for _, want := range []string{"--ctx-size 600", "--parallel 3", "--gpu-layers 0", "--alias smollm2-135m"} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %s", want, args)
		}
	}
}

func TestLoadFailures(t *testing.T) {
	good := fakebundle.Use(t, fakellama.Script{})
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	safe := filepath.Join(dir, "hf")
	if err := os.Mkdir(safe, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(safe, "model.safetensors"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path string
		opts []inference.LoadOption
		want error
		says string
	}{
		"no path":         {"", nil, rocm.ErrModelFile, "the path is empty"},
		"missing":         {filepath.Join(dir, "no.gguf"), nil, rocm.ErrModelFile, "no such file"},
		"not gguf":        {file("a.gguf", "hello, this is no model"), nil, rocm.ErrModelFile, "convert"},
		"safetensors":     {safe, nil, rocm.ErrModelFile, "convert_hf_to_gguf"},
		"adapter missing": {good, []inference.LoadOption{inference.WithAdapterPath(filepath.Join(dir, "no.gguf"))}, rocm.ErrModelFile, "no.gguf"},
		"adapter foreign": {good, []inference.LoadOption{inference.WithAdapterPath(file("lora.safetensors", "x"))}, rocm.ErrModelFile, "convert_lora_to_gguf"},
		"adapter a model": {good, []inference.LoadOption{inference.WithAdapterPath(good)}, rocm.ErrModelFile, "not an adapter"},
		"context":         {good, []inference.LoadOption{inference.WithContextLen(-5)}, rocm.ErrInvalidOption, "context"},
		"slots":           {good, []inference.LoadOption{inference.WithParallelSlots(-5)}, rocm.ErrInvalidOption, "slots"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := inference.LoadModel(tt.path, append(tt.opts, inference.WithBackend(rocm.Name))...)
			if m != nil {
				t.Errorf("a model beside the error: %v", m)
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.says)
			}
		})
	}
	t.Setenv(locate.EnvBundle, filepath.Join(dir, "nowhere"))
	for name, opts := range map[string][]inference.LoadOption{"named": {inference.WithBackend(rocm.Name)}, "default": nil} {
		_, err := inference.LoadModel(good, opts...)
		if !errors.Is(err, rocm.ErrNoBundle) || !errors.Is(err, inference.ErrBackendUnavailable) || !strings.Contains(err.Error(), locate.EnvBundle) {
			t.Errorf("%s backend without a bundle: %v; want ErrNoBundle and the remedy", name, err)
		}
	}
	if reason := new(rocm.Backend).CheckAvailable(); !errors.Is(reason, rocm.ErrNoBundle) || new(rocm.Backend).Available() {
		t.Errorf("without a bundle: %v, available %v", reason, new(rocm.Backend).Available())
	}
}

// A directory with one model is loaded as that model.
func TestLoadDirectory(t *testing.T) {
	b := fakebundle.New(t, fakellama.Script{Reply: "ok"})
	m, err := (&rocm.Backend{Defaults: rocm.Settings{Bundle: b.Dir}}).LoadModel(filepath.Dir(b.Model))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if got := text(collect(m.Generate(t.Context(), "x"))); got != "ok" {
		t.Errorf("got %q, %v", got, m.Err())
	}
}

// TestConformance checks every promise of the contract, with a child process that
// imitates llama-server. testing/e2e runs the same suite with the real server.
func TestConformance(t *testing.T) {
	for name, script := range map[string]fakellama.Script{
		"one slot":                   {},
		"four slots":                 {Slots: 4},
		"pings and carriage returns": {Slots: 2, PingEvery: 1, CRLF: true},
		"single bytes":               {Slots: 2, Faults: []fakellama.Fault{{Kind: fakellama.KindTrickle}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := fakebundle.New(t, script)
			conformance.Run(t, conformance.Subject{
				// A Close that waits for readers would not return before the check ends.
				Backend: &rocm.Backend{Defaults: rocm.Settings{Bundle: b.Dir, Timeouts: rocm.Timeouts{Drain: time.Hour}}}, Model: b.Model,
				Logits: true, Chat: true, Steady: true, TooLong: strings.Repeat("word ", 2000),
			})
		})
	}
}

// The contract's options change the defaults that they name, and no others.
func TestLoadOptionsChangeDefaults(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{})
	b := &rocm.Backend{Defaults: rocm.Settings{Bundle: fake.Dir, Options: plan.Options{Context: 600, Slots: 3, Layers: plan.CPUOnly}}}
	loaded, err := b.LoadModel(fake.Model, inference.WithParallelSlots(2))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loaded.Close() }()
	m, ok := loaded.(*rocm.Model)
	if !ok {
		t.Fatalf("a %T", loaded)
	}
	if args := strings.Join(m.Server().Plan.Args, " "); !strings.Contains(args, "--ctx-size 600 --parallel 2") || !strings.Contains(args, "--gpu-layers 0") {
		t.Errorf("started with %s", args)
	}
}

// A number of layers asks for a GPU. Without a GPU that is an error: the model does not
// run on the CPU silently.
func TestGPULayersNeedAGPU(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{})
	b := &rocm.Backend{Defaults: rocm.Settings{Bundle: fake.Dir, SysRoot: t.TempDir()}}
	if _, err := b.LoadModel(fake.Model, inference.WithGPULayers(10)); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), "default") {
		t.Errorf("10 layers: %v; want ErrNoGPU and the remedy", err)
	}
	for _, n := range []int{0, -1} {
		m, err := b.LoadModel(fake.Model, inference.WithGPULayers(n))
		if err != nil {
			t.Fatalf("%d layers: %v", n, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
