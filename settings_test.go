//go:build linux && amd64

package rocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// Settings that cannot work are errors before a process is started.
func TestInvalidSettingsAreRejected(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*rocm.Settings){
		"one of them":         func(s *rocm.Settings) { s.Embeddings, s.Reranking = true, true },
		"start timeout":       func(s *rocm.Settings) { s.Timeouts.Start = -time.Second },
		"stop timeout":        func(s *rocm.Settings) { s.Timeouts.Stop = -1 },
		"Restart.Disabled":    func(s *rocm.Settings) { s.Restart.MaxFailures = -1 },
		"longest backoff":     func(s *rocm.Settings) { s.Restart.MinBackoff, s.Restart.MaxBackoff = time.Second, time.Millisecond },
		"pooling \"average\"": func(s *rocm.Settings) { s.Pooling = "average" },
		"host:port":           func(s *rocm.Settings) { s.TCP = "127.0.0.1:99999" },
		"template file":       func(s *rocm.Settings) { s.ChatTemplateFile = filepath.Join(dir, "absent.jinja") },
		"not a regular file":  func(s *rocm.Settings) { s.ChatTemplateFile = fifo },
		"create it":           func(s *rocm.Settings) { s.SlotDir = filepath.Join(dir, "absent") },
		"not a directory":     func(s *rocm.Settings) { s.SlotDir = file },
		"context of -1":       func(s *rocm.Settings) { s.Context = -1 },
		"cache type":          func(s *rocm.Settings) { s.Cache.KeyType = "q9" },
	} {
		var s rocm.Settings
		change(&s)
		_, loadErr := new(rocm.Backend).Load(t.Context(), model, s)
		_, planErr := rocm.Plan(model, s)
		for _, err := range []error{s.Validate(), loadErr, planErr} {
			if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v; want an ErrInvalidOption that says %q", err, says)
			}
		}
	}
	if err := new(rocm.Settings).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

// The contract's options change the defaults that they name, and no others.
func TestLoadOptionsChangeDefaults(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	b := &rocm.Backend{Defaults: rocm.Settings{Options: plan.Options{Context: 600, Slots: 3, Layers: plan.CPUOnly}}}
	loaded, err := b.LoadModel(model, inference.WithParallelSlots(2))
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

// A number of layers asks for a GPU; without one the model does not run on the CPU
// in silence.
func TestGPULayersNeedAGPU(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	b := &rocm.Backend{Defaults: rocm.Settings{SysRoot: t.TempDir()}}
	if _, err := b.LoadModel(model, inference.WithGPULayers(10)); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), "default") {
		t.Errorf("10 layers: %v; want ErrNoGPU and the remedy", err)
	}
	for _, n := range []int{0, -1} {
		m, err := b.LoadModel(model, inference.WithGPULayers(n))
		if err != nil {
			t.Fatalf("%d layers: %v", n, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Progress is about loading: it ends when the model is ready.
func TestProgressEndsWithLoading(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	var mu sync.Mutex
	var stages []rocm.LoadStage
	var states []supervise.State
	s := rocm.Settings{Bundle: packSelf(t)}
	s.Progress = func(p rocm.LoadProgress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Done < 0 || p.Done > 1 {
			t.Errorf("%+v", p)
		}
		if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
			stages = append(stages, p.Stage)
		}
	}
	s.OnEvent = func(e supervise.Event) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, e.To)
	}
	m, err := new(rocm.Backend).Load(t.Context(), model, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []rocm.LoadStage{rocm.StageUnpack, rocm.StageStart, rocm.StageLoad}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}
	if !slices.Contains(states, supervise.Ready) || !slices.Contains(states, supervise.Stopped) {
		t.Errorf("events %v, want the whole life", states)
	}
}

func kill(t *testing.T, m *rocm.Model) {
	t.Helper()
	if err := syscall.Kill(m.Server().Child.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// A model that the contract loaded outlives a crash of its process.
func TestCrashDoesNotEndTheModel(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "yes"})
	for range 2 {
		kill(t, m)
		if got := text(collect(m.Generate(t.Context(), "x"))); got != "yes" || m.Err() != nil {
			t.Errorf("after a crash: %q, %v", got, m.Err())
		}
	}
}

func TestRestartsAreBounded(t *testing.T) {
	s := rocm.Settings{Restart: rocm.Restart{MaxFailures: 1}}
	for name, restart := range map[string]rocm.Restart{"after one failure": s.Restart, "disabled": {Disabled: true}} {
		m, err := new(rocm.Backend).Load(t.Context(), fakebundle.Use(t, fakellama.Script{}), rocm.Settings{Restart: restart})
		if err != nil {
			t.Fatal(err)
		}
		kill(t, m)
		<-m.Server().Child.Done()
		collect(m.Generate(t.Context(), "x"))
		var exit *supervise.ExitError
		if err := m.Err(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || errors.Is(err, supervise.ErrCrashLoop) == restart.Disabled {
			t.Errorf("%s: %v; want the end by SIGKILL", name, err)
		}
		_ = m.Close()
	}
}

// The scales of SetAdapters belong to the model and not to a process.
func TestAdapterScalesOutliveACrash(t *testing.T) {
	adapter := filepath.Join(t.TempDir(), "a.gguf")
	b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.WriteFile(adapter); err != nil {
		t.Fatal(err)
	}
	m := loadWith(t, rocm.Settings{Options: plan.Options{Adapters: []string{adapter}}, Restart: rocm.Restart{MinBackoff: time.Millisecond}})
	if err := m.SetAdapters(t.Context(), []llamaapi.LoRAScale{{ID: 0, Scale: 0.25}}); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	collect(m.Generate(t.Context(), "x", inference.WithMaxTokens(2)))
	if m.Err() != nil {
		t.Error(m.Err())
	}
	holdsAdapters(t, m, llamaapi.LoRA{ID: 0, Path: adapter, Scale: 0.25})
}
