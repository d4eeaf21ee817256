//go:build linux && amd64

package goinference_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	goinf "forge.lthn.ai/core/go-inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/contrib/goinference"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// load loads a model as a program does: go-inference finds the backend itself.
func load(t *testing.T, s fakellama.Script, opts ...goinf.LoadOption) *goinference.Model {
	t.Helper()
	m, err := goinf.LoadModel(fakebundle.Use(t, s), opts...)
	if err != nil {
		t.Fatal(err)
	}
	model, ok := m.(*goinference.Model)
	if !ok {
		t.Fatalf("a %T", m)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	})
	return model
}

func text(tokens iter.Seq[goinf.Token]) (text string, n int) {
	for t := range tokens {
		text += t.Text
		n++
	}
	return text, n
}

// back converts go-inference's types back to those of pkg/inference, so that the
// conformance suite of pkg/inference tests both conversions.
type back struct{ goinf.Backend }

func (b back) LoadModel(path string, opts ...inference.LoadOption) (inference.TextModel, error) {
	cfg := inference.ApplyLoadOpts(opts)
	m, err := b.Backend.LoadModel(path, func(c *goinf.LoadConfig) { *c = goinf.LoadConfig(cfg) })
	if err != nil {
		return nil, err
	}
	return backModel{m}, nil
}

type backModel struct{ goinf.TextModel }

func reverse(opts []inference.GenerateOption) goinf.GenerateOption {
	cfg := inference.ApplyGenerateOpts(opts)
	return func(c *goinf.GenerateConfig) { *c = goinf.GenerateConfig(cfg) }
}

func reversed(seq iter.Seq[goinf.Token]) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		seq(func(t goinf.Token) bool { return yield(inference.Token(t)) })
	}
}

func (m backModel) Generate(ctx context.Context, p string, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	return reversed(m.TextModel.Generate(ctx, p, reverse(o)))
}

func (m backModel) Chat(ctx context.Context, messages []inference.Message, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	var converted []goinf.Message
	for _, t := range messages {
		converted = append(converted, goinf.Message(t))
	}
	return reversed(m.TextModel.Chat(ctx, converted, reverse(o)))
}

func (m backModel) Classify(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	results, err := m.TextModel.Classify(ctx, p, reverse(o))
	var out []inference.ClassifyResult
	for _, r := range results {
		out = append(out, inference.ClassifyResult{Token: inference.Token(r.Token), Logits: r.Logits})
	}
	return out, err
}

func (m backModel) BatchGenerate(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.BatchResult, error) {
	results, err := m.TextModel.BatchGenerate(ctx, p, reverse(o))
	var out []inference.BatchResult
	for _, r := range results {
		b := inference.BatchResult{Err: r.Err}
		for _, t := range r.Tokens {
			b.Tokens = append(b.Tokens, inference.Token(t))
		}
		out = append(out, b)
	}
	return out, err
}

func (m backModel) Info() inference.ModelInfo { return inference.ModelInfo(m.TextModel.Info()) }
func (m backModel) Metrics() inference.GenerateMetrics {
	return inference.GenerateMetrics(m.TextModel.Metrics())
}

// TestConformance checks that the conversion keeps every promise of the contract.
func TestConformance(t *testing.T) {
	b, ok := goinf.Get(rocm.Name)
	if !ok {
		t.Fatal("importing the package registers nothing")
	}
	conformance.Run(t, conformance.Subject{
		Backend: back{b}, Model: fakebundle.Use(t, fakellama.Script{Slots: 4}),
		Logits: true, Chat: true, Steady: true, TooLong: strings.Repeat("word ", 2000),
	})
}

func TestRegistered(t *testing.T) {
	t.Setenv(locate.EnvBundle, t.TempDir()) // an empty directory is not a bundle
	b, ok := goinf.Get("rocm")
	if !ok || b.Name() != "rocm" {
		t.Fatalf("registered: %v", goinf.List())
	}
	if b.Available() {
		t.Error("available without a bundle")
	}
	if _, err := goinf.LoadModel("model.gguf"); err == nil {
		t.Error("a model is loaded without a bundle")
	}
}

// Each option reaches the server.
func TestOptions(t *testing.T) {
	m := load(t, fakellama.Script{}, goinf.WithBackend("rocm"), goinf.WithParallelSlots(3), goinf.WithContextLen(600), goinf.WithGPULayers(0))
	args := strings.Join(m.ROCm().Server().Child.Diagnose().Argv, " ")
	for _, want := range []string{"--ctx-size 600", "--parallel 3", "--gpu-layers 0"} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %s", want, args)
		}
	}
	if _, n := text(m.Generate(t.Context(), "x", goinf.WithMaxTokens(2))); n != 2 {
		t.Errorf("%d tokens, want 2", n)
	}
	for name, bad := range map[string]goinf.GenerateOption{
		"temperature": goinf.WithTemperature(-1), "top-k": goinf.WithTopK(-1),
		"top-p": goinf.WithTopP(2), "penalty": goinf.WithRepeatPenalty(-1),
	} {
		if _, n := text(m.Generate(t.Context(), "x", bad)); n != 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("%s: %d tokens, %v; want rocm.ErrInvalidOption", name, n, m.Err())
		}
	}
}

// Errors match the same conditions as before the conversion.
func TestErrorsPassThrough(t *testing.T) {
	m := load(t, fakellama.Script{TemplateError: "no such filter"})
	text(m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "hi"}}))
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "no such filter") {
		t.Errorf("the template's error became %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	text(m.Generate(t.Context(), "x"))
	if !errors.Is(m.Err(), rocm.ErrClosed) {
		t.Errorf("after Close: %v", m.Err())
	}
	if _, err := m.Classify(t.Context(), []string{"x"}); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("Classify after Close: %v", err)
	}
	if out, err := m.BatchGenerate(t.Context(), []string{"x"}); !errors.Is(err, rocm.ErrClosed) || len(out) != 1 || out[0].Err == nil {
		t.Errorf("BatchGenerate after Close: %+v, %v", out, err)
	}
	absent, err := goinf.LoadModel(filepath.Join(t.TempDir(), "absent.gguf"))
	if !errors.Is(err, rocm.ErrModelFile) || absent != nil {
		t.Errorf("an absent model: %v, %v", absent, err)
	}
}

// ROCm and Wrap give access to what the contract lacks.
func TestBeyondTheContract(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "yes"})
	ids, err := m.ROCm().Tokenize(t.Context(), "yes")
	if err != nil || len(ids) == 0 {
		t.Errorf("tokenize: %v, %v", ids, err)
	}
	if got, _ := text(goinference.Wrap(m.ROCm()).Generate(t.Context(), "x")); got != "yes" {
		t.Errorf("wrapped again it says %q", got)
	}
}

// The conversion covers every field: a field that a release of pkg/inference adds fails this
// test.
func TestNoMemberIsForgotten(t *testing.T) {
	for _, pair := range [][2]any{
		{inference.Token{}, goinf.Token{}},
		{inference.Message{}, goinf.Message{}},
		{inference.ModelInfo{}, goinf.ModelInfo{}},
		{inference.GenerateMetrics{}, goinf.GenerateMetrics{}},
		{inference.GenerateConfig{}, goinf.GenerateConfig{}},
		{inference.LoadConfig{}, goinf.LoadConfig{}},
	} {
		if ours, theirs := reflect.TypeOf(pair[0]), reflect.TypeOf(pair[1]); !ours.ConvertibleTo(theirs) {
			t.Errorf("%v and %v differ", ours, theirs)
		}
	}
	m := load(t, fakellama.Script{})
	text(m.Generate(t.Context(), "Tell me", goinf.WithMaxTokens(5)))
	if got, want := inference.GenerateMetrics(m.Metrics()), m.ROCm().Metrics(); got != want {
		t.Errorf("metrics %+v became %+v", want, got)
	}
	if got, want := inference.ModelInfo(m.Info()), m.ROCm().Info(); got != want || m.ModelType() != want.Architecture {
		t.Errorf("info %+v became %+v", want, got)
	}
}
