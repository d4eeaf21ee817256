//go:build linux && amd64

package result_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "dappco.re/go"
	goinf "dappco.re/go/inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/contrib/goinference/result"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// unwrap returns the value or the error of a Result, as a program does.
func unwrap[T any](r core.Result) (value T, err error) {
	if !r.OK {
		err, ok := r.Value.(error)
		if !ok {
			err = fmt.Errorf("a failure with a %T instead of an error", r.Value)
		}
		return value, err
	}
	if r.Value == nil {
		return value, nil
	}
	value, ok := r.Value.(T)
	if !ok {
		return value, fmt.Errorf("a %T instead of a %T", r.Value, value)
	}
	return value, nil
}

// load loads a model as a program does: go-inference finds the backend itself.
func load(t *testing.T, s fakellama.Script, opts ...goinf.LoadOption) *result.Model {
	t.Helper()
	m, err := unwrap[*result.Model](goinf.LoadModel(fakebundle.Use(t, s), opts...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := m.Close(); !r.OK || r.Value != nil {
			t.Errorf("closing: %+v", r)
		}
	})
	return m
}

func with(f func(*goinf.GenerateConfig)) goinf.GenerateOption { return f }

func drain(m *result.Model, seq iter.Seq[goinf.Token]) (text string, n int, err error) {
	for t := range seq {
		text += t.Text
		n++
	}
	_, err = unwrap[any](m.Err())
	return text, n, err
}

// back converts go-inference's types back to those of pkg/inference, so that the
// conformance suite of pkg/inference tests both conversions.
type back struct{ b goinf.Backend }

func (b back) Name() string    { return b.b.Name() }
func (b back) Available() bool { return b.b.Available() }
func (b back) LoadModel(path string, opts ...inference.LoadOption) (inference.TextModel, error) {
	cfg := inference.ApplyLoadOpts(opts)
	m, err := unwrap[goinf.TextModel](b.b.LoadModel(path, func(c *goinf.LoadConfig) { *c = goinf.LoadConfig(cfg) }))
	if err != nil {
		return nil, err
	}
	return backModel{m}, nil
}

type backModel struct{ m goinf.TextModel }

func reverse(opts []inference.GenerateOption) goinf.GenerateOption {
	from := inference.ApplyGenerateOpts(opts)
	return with(func(c *goinf.GenerateConfig) {
		c.MaxTokens, c.Temperature, c.TopK, c.TopP = from.MaxTokens, from.Temperature, from.TopK, from.TopP
		c.StopTokens, c.RepeatPenalty, c.ReturnLogits = from.StopTokens, from.RepeatPenalty, from.ReturnLogits
	})
}

func reversed(seq iter.Seq[goinf.Token]) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		seq(func(t goinf.Token) bool { return yield(inference.Token(t)) })
	}
}

func (m backModel) Generate(ctx context.Context, p string, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	return reversed(m.m.Generate(ctx, p, reverse(o)))
}

func (m backModel) Chat(ctx context.Context, messages []inference.Message, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	var converted []goinf.Message
	for _, t := range messages {
		converted = append(converted, goinf.Message{Role: t.Role, Content: t.Content})
	}
	return reversed(m.m.Chat(ctx, converted, reverse(o)))
}

func (m backModel) Classify(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	results, err := unwrap[[]goinf.ClassifyResult](m.m.Classify(ctx, p, reverse(o)))
	var out []inference.ClassifyResult
	for _, r := range results {
		out = append(out, inference.ClassifyResult{Token: inference.Token(r.Token), Logits: r.Logits})
	}
	return out, err
}

func (m backModel) BatchGenerate(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.BatchResult, error) {
	results, err := unwrap[[]goinf.BatchResult](m.m.BatchGenerate(ctx, p, reverse(o)))
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

func (m backModel) ModelType() string         { return m.m.ModelType() }
func (m backModel) Info() inference.ModelInfo { return inference.ModelInfo(m.m.Info()) }

func (m backModel) Metrics() inference.GenerateMetrics {
	g := m.m.Metrics()
	return inference.GenerateMetrics{
		PromptTokens: g.PromptTokens, GeneratedTokens: g.GeneratedTokens,
		PrefillDuration: g.PrefillDuration, DecodeDuration: g.DecodeDuration, TotalDuration: g.TotalDuration,
		PrefillTokensPerSec: g.PrefillTokensPerSec, DecodeTokensPerSec: g.DecodeTokensPerSec,
		PeakMemoryBytes: g.PeakMemoryBytes, ActiveMemoryBytes: g.ActiveMemoryBytes,
	}
}

func (m backModel) Err() (err error)   { _, err = unwrap[any](m.m.Err()); return err }
func (m backModel) Close() (err error) { _, err = unwrap[any](m.m.Close()); return err }

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

// Without a limit, the answer ends when the context is full, which is not a failure.
func TestContextLimitsTokens(t *testing.T) {
	m := load(t, fakellama.Script{NeverEnds: true, ContextLen: 600}, goinf.WithContextLen(600))
	_, n, err := drain(m, m.Generate(t.Context(), "Tell me"))
	if err != nil || n < 300 || n > 600 {
		t.Errorf("%d tokens, %v", n, err)
	}
	if _, n, err = drain(m, m.Generate(t.Context(), "Tell me", goinf.WithMaxTokens(3))); err != nil || n != 3 {
		t.Errorf("%d tokens of 3, %v", n, err)
	}
}

// Every operation rejects unsupported options by name.
func TestRejectsUnsupportedOptions(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "yes"})
	for name, set := range map[string]func(*goinf.GenerateConfig){
		"SuppressTokens":      func(c *goinf.GenerateConfig) { c.SuppressTokens = []int32{1} },
		"MinTokensBeforeStop": func(c *goinf.GenerateConfig) { c.MinTokensBeforeStop = 8 },
		"thinking budget":     func(c *goinf.GenerateConfig) { c.ThinkingBudget = 100 },
		"thinking mode":       func(c *goinf.GenerateConfig) { c.Thinking.Mode = goinf.ThinkingHide },
		"temperature":         func(c *goinf.GenerateConfig) { c.Temperature = -1 },
		"min-p":               func(c *goinf.GenerateConfig) { c.Temperature, c.MinP = 1, 7 },
	} {
		errs := map[string]error{}
		_, _, errs["generate"] = drain(m, m.Generate(t.Context(), "x", with(set)))
		_, _, errs["chat"] = drain(m, m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "x"}}, with(set)))
		_, errs["classify"] = unwrap[[]goinf.ClassifyResult](m.Classify(t.Context(), []string{"x"}, with(set)))
		results, err := unwrap[[]goinf.BatchResult](m.BatchGenerate(t.Context(), []string{"x"}, with(set)))
		if len(results) == 1 {
			err = results[0].Err
		}
		errs["batch"] = err
		for op, err := range errs {
			if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s with a %s: %v", op, name, err)
			}
		}
	}
	// The metrics cover the time that the rejection took.
	got := m.Metrics()
	got.TotalDuration = 0
	if got != (goinf.GenerateMetrics{}) {
		t.Errorf("a rejected operation has metrics %+v", got)
	}
	_, n, err := drain(m, m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "x", Images: [][]byte{{1}}}}))
	if n != 0 || !errors.Is(err, rocm.ErrNoProjector) {
		t.Errorf("an image: %d tokens, %v", n, err)
	}
	_, n, err = drain(m, m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "x", Videos: [][]byte{{1}}}}))
	if n != 0 || !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "videos") {
		t.Errorf("a video: %d tokens, %v", n, err)
	}
	if got, _, err := drain(m, m.Generate(t.Context(), "x")); got != "yes" || err != nil {
		t.Errorf("then: %q, %v", got, err)
	}
}

// The images of a message reach the model.
func TestImages(t *testing.T) {
	m := load(t, fakellama.Script{Vision: true})
	say := func(images ...[]byte) string {
		t.Helper()
		text, _, err := drain(m, m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "x", Images: images}},
			with(func(c *goinf.GenerateConfig) { c.MaxTokens = 20 })))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	red, blue := imagegen.PNG(16, 1), imagegen.PNG(16, 2)
	if one, none := say(red), say(); one != say(red) || one == none || one == say(blue) || one == say(red, blue) {
		t.Errorf("%q with an image, %q without, %q with another", one, none, say(blue))
	}
}

// The same seed samples the same tokens, whatever its 64 bits are.
func TestSeed(t *testing.T) {
	m := load(t, fakellama.Script{})
	sample := func(seed uint64) string {
		text, _, err := drain(m, m.Generate(t.Context(), "Tell me", with(func(c *goinf.GenerateConfig) {
			c.MaxTokens, c.Temperature, c.MinP, c.Seed, c.SeedSet = 30, 1, 0.01, seed, true
		})))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, seed := range []uint64{0, 7, math.MaxUint32, math.MaxUint64} {
		if one, two := sample(seed), sample(seed); one != two {
			t.Errorf("seed %d gave %q, then %q", seed, one, two)
		}
	}
	if sample(7) == sample(8) {
		t.Error("two seeds, one text")
	}
	greedy := with(func(c *goinf.GenerateConfig) { c.MaxTokens, c.Seed, c.SeedSet = 2, 7, true })
	if _, err := unwrap[[]goinf.BatchResult](m.BatchGenerate(t.Context(), []string{"x"}, greedy)); err != nil {
		t.Errorf("a seed where there is nothing to draw: %v", err)
	}
	drawn := with(func(c *goinf.GenerateConfig) { c.Temperature, c.Seed, c.SeedSet = 1, 7, true })
	if _, err := unwrap[[]goinf.BatchResult](m.BatchGenerate(t.Context(), []string{"x"}, drawn)); !errors.Is(err, rocm.ErrInvalidOption) {
		t.Errorf("a seed for a drawn batch: %v", err)
	}
}

// Failed Results have errors that match their conditions: go-inference asserts an error.
func TestFailuresCarryErrors(t *testing.T) {
	m := load(t, fakellama.Script{TemplateError: "no such filter"})
	off := false
	_, _, err := drain(m, m.Chat(t.Context(), []goinf.Message{{Role: "user", Content: "hi"}}, with(func(c *goinf.GenerateConfig) { c.EnableThinking = &off })))
	if err == nil || !strings.Contains(err.Error(), "no such filter") {
		t.Errorf("the template's error became %v", err)
	}
	if r := m.Close(); !r.OK {
		t.Fatal(r.Error())
	}
	if _, _, err := drain(m, m.Generate(t.Context(), "x")); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("Generate after Close: %v", err)
	}
	if _, err := unwrap[any](m.Classify(t.Context(), []string{"x"})); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("Classify after Close: %v", err)
	}
	if _, err := unwrap[any](m.BatchGenerate(t.Context(), []string{"x"})); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("BatchGenerate after Close: %v", err)
	}
	if _, err := unwrap[any](goinf.LoadModel(filepath.Join(t.TempDir(), "absent.gguf"))); !errors.Is(err, rocm.ErrModelFile) {
		t.Errorf("an absent model: %v", err)
	}
	t.Setenv(locate.EnvBundle, t.TempDir())
	if r := goinf.LoadModel("model.gguf"); r.OK || r.Error() == "" {
		t.Errorf("without a bundle: %+v", r)
	}
}
