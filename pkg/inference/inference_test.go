package inference

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// stubBackend is a backend that remembers what it was asked to load.
type stubBackend struct {
	name      string
	available bool
	loaded    []LoadConfig
}

func (b *stubBackend) Name() string    { return b.name }
func (b *stubBackend) Available() bool { return b.available }
func (b *stubBackend) LoadModel(_ string, opts ...LoadOption) (TextModel, error) {
	b.loaded = append(b.loaded, ApplyLoadOpts(opts))
	return stubModel{}, nil
}

// stubModel and the assertions below hold the method sets in place: a changed
// signature fails to compile here.
type stubModel struct{}

var (
	_ TextModel          = stubModel{}
	_ AttentionInspector = stubModel{}
)

func (stubModel) Generate(context.Context, string, ...GenerateOption) iter.Seq[Token] {
	return func(func(Token) bool) {}
}

func (stubModel) Chat(context.Context, []Message, ...GenerateOption) iter.Seq[Token] {
	return func(func(Token) bool) {}
}

func (stubModel) Classify(context.Context, []string, ...GenerateOption) ([]ClassifyResult, error) {
	return nil, nil
}

func (stubModel) BatchGenerate(context.Context, []string, ...GenerateOption) ([]BatchResult, error) {
	return nil, nil
}
func (stubModel) ModelType() string        { return "stub" }
func (stubModel) Info() ModelInfo          { return ModelInfo{Architecture: "stub"} }
func (stubModel) Metrics() GenerateMetrics { return GenerateMetrics{} }
func (stubModel) Err() error               { return nil }
func (stubModel) Close() error             { return nil }

func (stubModel) InspectAttention(context.Context, string, ...GenerateOption) (*AttentionSnapshot, error) {
	return &AttentionSnapshot{}, nil
}

// withBackends replaces the registry for the duration of a test.
func withBackends(t *testing.T, bs ...Backend) {
	t.Helper()
	old := backends.byName
	backends.byName = map[string]Backend{}
	t.Cleanup(func() { backends.byName = old })
	for _, b := range bs {
		Register(b)
	}
}

func TestRegistry(t *testing.T) {
	first, second := &stubBackend{name: "zeta"}, &stubBackend{name: "zeta"}
	withBackends(t, first, &stubBackend{name: "alpha"}, second)
	if got, want := List(), []string{"alpha", "zeta"}; !slices.Equal(got, want) {
		t.Errorf("List() = %v, want %v", got, want)
	}
	if b, ok := Get("zeta"); !ok || b != Backend(second) {
		t.Errorf("Get(zeta) = %v, %v; want the backend registered last", b, ok)
	}
	if b, ok := Get("absent"); ok || b != nil {
		t.Errorf("Get(absent) = %v, %v", b, ok)
	}
	var seen []string
	for name, b := range All() {
		seen = append(seen, name)
		Register(&stubBackend{name: "beta"}) // a snapshot must not see it
		if b == nil {
			t.Errorf("All yields a nil backend for %s", name)
		}
	}
	if want := []string{"alpha", "zeta"}; !slices.Equal(seen, want) {
		t.Errorf("All() = %v, want %v", seen, want)
	}
	for range All() {
		break // must not go on after a break
	}
}

func TestRegisterMisuse(t *testing.T) {
	withBackends(t)
	for name, b := range map[string]Backend{"nil": nil, "nameless": &stubBackend{}} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			Register(b)
		})
	}
}

func TestRegistryConcurrent(t *testing.T) {
	withBackends(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			Register(&stubBackend{name: fmt.Sprint("b", i), available: i == 3})
			List()
			for range All() {
				continue
			}
			if b, err := Default(); err == nil && b.Name() != "b3" {
				t.Errorf("Default() = %s", b.Name())
			}
		})
	}
	wg.Wait()
	if n := len(List()); n != 16 {
		t.Errorf("%d backends, want 16", n)
	}
}

func TestDefaultOrder(t *testing.T) {
	all := []string{"aaa", "llama_cpp", "metal", "rocm", "zzz"}
	for _, tc := range []struct {
		available []string
		want      string
	}{
		{[]string{"aaa", "llama_cpp", "metal", "rocm"}, "metal"},
		{[]string{"aaa", "llama_cpp", "rocm"}, "rocm"},
		{[]string{"aaa", "llama_cpp"}, "llama_cpp"},
		{[]string{"zzz", "aaa"}, "aaa"},
		{[]string{"zzz"}, "zzz"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			withBackends(t)
			for _, n := range all {
				Register(&stubBackend{name: n, available: slices.Contains(tc.available, n)})
			}
			b, err := Default()
			if err != nil || b.Name() != tc.want {
				t.Errorf("Default() = %v, %v; want %s", b, err, tc.want)
			}
		})
	}
}

func TestLoadModelErrors(t *testing.T) {
	t.Run("none registered", func(t *testing.T) {
		withBackends(t)
		_, err := LoadModel("m.gguf")
		if !errors.Is(err, ErrNoBackend) || !strings.Contains(err.Error(), "import") {
			t.Errorf("err = %v, want ErrNoBackend that says to import one", err)
		}
	})
	t.Run("none available", func(t *testing.T) {
		withBackends(t, &stubBackend{name: "rocm"})
		_, err := LoadModel("m.gguf")
		if !errors.Is(err, ErrNoBackend) || !strings.Contains(err.Error(), "rocm") {
			t.Errorf("err = %v, want ErrNoBackend that names rocm", err)
		}
	})
	t.Run("named, absent", func(t *testing.T) {
		withBackends(t)
		_, err := LoadModel("m.gguf", WithBackend("metal"))
		if !errors.Is(err, ErrBackendNotRegistered) || !strings.Contains(err.Error(), `"metal"`) {
			t.Errorf("err = %v, want ErrBackendNotRegistered that names metal", err)
		}
	})
	t.Run("named, unavailable", func(t *testing.T) {
		withBackends(t, &stubBackend{name: "rocm"}, &stubBackend{name: "metal", available: true})
		_, err := LoadModel("m.gguf", WithBackend("rocm"))
		if !errors.Is(err, ErrBackendUnavailable) || !strings.Contains(err.Error(), `"rocm"`) {
			t.Errorf("err = %v, want ErrBackendUnavailable that names rocm", err)
		}
	})
}

func TestLoadModelPassesOptions(t *testing.T) {
	b, other := &stubBackend{name: "rocm", available: true}, &stubBackend{name: "other", available: true}
	withBackends(t, b, other)
	if _, err := LoadModel("m.gguf", WithContextLen(4096), nil, WithGPULayers(0), WithParallelSlots(4), WithAdapterPath("a.gguf")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadModel("m.gguf", WithBackend("other")); err != nil {
		t.Fatal(err)
	}
	want := LoadConfig{ContextLen: 4096, GPULayers: 0, ParallelSlots: 4, AdapterPath: "a.gguf"}
	if len(b.loaded) != 1 || b.loaded[0] != want {
		t.Errorf("rocm was given %+v, want one %+v", b.loaded, want)
	}
	if want := (LoadConfig{Backend: "other", GPULayers: -1}); len(other.loaded) != 1 || other.loaded[0] != want {
		t.Errorf("other was given %+v, want one %+v", other.loaded, want)
	}
}

func TestGenerateOptions(t *testing.T) {
	if got, want := ApplyGenerateOpts(nil), (GenerateConfig{MaxTokens: 256}); !reflect.DeepEqual(got, want) {
		t.Errorf("default = %+v, want %+v", got, want)
	}
	got := ApplyGenerateOpts([]GenerateOption{
		WithMaxTokens(7), WithTemperature(0.5), nil, WithTopK(40), WithTopP(0.9),
		WithStopTokens(1, 2), WithRepeatPenalty(1.1), WithLogits(), WithMaxTokens(8),
	})
	want := GenerateConfig{
		MaxTokens: 8, Temperature: 0.5, TopK: 40, TopP: 0.9,
		StopTokens: []int32{1, 2}, RepeatPenalty: 1.1, ReturnLogits: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestJSONNames(t *testing.T) {
	b, err := json.Marshal(Message{Role: "user", Content: "hi"})
	if err != nil || string(b) != `{"role":"user","content":"hi"}` {
		t.Errorf("Message: %s, %v", b, err)
	}
	b, err = json.Marshal(AttentionSnapshot{NumQueryHeads: 8, Keys: [][][]float32{{{1}}}, Queries: [][][]float32{{{2}}}})
	want := `{"num_layers":0,"num_heads":0,"seq_len":0,"head_dim":0,"num_query_heads":8,"keys":[[[1]]],"queries":[[[2]]],"architecture":""}`
	if err != nil || string(b) != want {
		t.Errorf("AttentionSnapshot: %s, %v; want %s", b, err, want)
	}
}

func TestHasQueries(t *testing.T) {
	var none *AttentionSnapshot
	if none.HasQueries() || (&AttentionSnapshot{}).HasQueries() {
		t.Error("HasQueries without queries")
	}
	if !(&AttentionSnapshot{Queries: [][][]float32{{}}}).HasQueries() {
		t.Error("queries are not seen")
	}
}
