//go:build linux && amd64

package rocm_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestInvalidOptionsAreRejected(t *testing.T) {
	m := load(t, fakellama.Script{})
	nan := float32(math.NaN())
	for name, opt := range map[string]inference.GenerateOption{
		"max tokens": inference.WithMaxTokens(-1), "temperature": inference.WithTemperature(nan), "negative temperature": inference.WithTemperature(-1),
		"top-k": inference.WithTopK(-1), "top-p": inference.WithTopP(2), "penalty": inference.WithRepeatPenalty(nan),
	} {
		if got := collect(m.Generate(t.Context(), "x", opt)); len(got) != 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("%s: %d tokens, %v; want ErrInvalidOption", name, len(got), m.Err())
		}
	}
}

// llama-server reads whole numbers as 32 bits: a larger number would mean another one.
func TestLimitsAreClampedTo32Bits(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "one two three four five six"})
	want := collect(m.Generate(t.Context(), "x", inference.WithMaxTokens(1000)))
	for _, n := range []int{math.MaxInt32, 1<<32 + 3, 1 << 62, math.MaxInt} {
		got := collect(m.Generate(t.Context(), "x", inference.WithMaxTokens(n), inference.WithTopK(n)))
		if m.Err() != nil || text(got) != text(want) {
			t.Errorf("at most %d tokens: %q, %v; want %q", n, text(got), m.Err(), text(want))
		}
	}
}

func TestOptionsOutOfRangeAreRejected(t *testing.T) {
	m := loadWith(t, fakellama.Script{Slots: 2}, rocm.Settings{Options: plan.Options{Slots: 2}})
	for name, tt := range map[string]struct {
		req  rocm.Request
		says string
	}{
		"negative seed": {rocm.Request{Prompt: rocm.TextPrompt("x"), Seed: ptr(int64(-1))}, "nil"},
		"random seed":   {rocm.Request{Prompt: rocm.TextPrompt("x"), Seed: ptr(int64(math.MaxUint32))}, "4294967294"},
		"huge seed":     {rocm.Request{Prompt: rocm.TextPrompt("x"), Seed: ptr(int64(1<<32 + 7))}, "4294967294"},
		"empty stop":    {rocm.Request{Prompt: rocm.TextPrompt("x"), Stop: []string{"a", ""}}, "stop text 1"},
		"slot":          {rocm.Request{Prompt: rocm.TextPrompt("x"), Slot: ptr(2)}, "0 to 1"},
		"negative slot": {rocm.Request{Prompt: rocm.TextPrompt("x"), Slot: ptr(-1)}, "nil"},
		"no adapter":    {rocm.Request{Prompt: rocm.TextPrompt("x"), Adapters: []llamaapi.LoRAScale{{ID: 0, Scale: 1}}}, "without adapters"},
		"nothing":       {rocm.Request{}, "no tokens"},
		"no token":      {rocm.Request{Prompt: rocm.TokenPrompt(nil)}, "no tokens"},
	} {
		tt.req.GenerateConfig = inference.GenerateConfig{MaxTokens: 4}
		st := m.Stream(t.Context(), tt.req)
		if _, ok := st.Next(); ok || !errors.Is(st.Err(), rocm.ErrInvalidOption) || !strings.Contains(st.Err().Error(), tt.says) {
			t.Errorf("%s: %v; want an ErrInvalidOption that says %q", name, st.Err(), tt.says)
		}
	}
	for _, seed := range []int64{0, math.MaxUint32 - 1} {
		st := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("x"), Seed: &seed, Slot: ptr(1), GenerateConfig: inference.GenerateConfig{MaxTokens: 4}})
		if n := len(collect(st.All())); n == 0 || st.Err() != nil {
			t.Errorf("seed %d in slot 1: %d tokens, %v", seed, n, st.Err())
		}
	}
}

// The network cannot compute anything for a prompt without tokens.
func TestEmptyPromptsAreRejected(t *testing.T) {
	m := load(t, fakellama.Script{})
	checkRejected := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "no tokens") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := collect(m.Generate(t.Context(), "")); len(got) > 0 {
		t.Errorf("Generate gave %v", got)
	}
	checkRejected("Generate", m.Err())
	results, err := m.BatchGenerate(t.Context(), []string{"x", ""})
	if err != nil || results[0].Err != nil || len(results[0].Tokens) == 0 {
		t.Errorf("the others of a batch: %+v, %v", results, err)
	}
	checkRejected("BatchGenerate", results[1].Err)
	_, err = m.Classify(t.Context(), []string{"x", ""})
	checkRejected("Classify", err)
	if err != nil && !strings.Contains(err.Error(), "prompt 1") {
		t.Errorf("Classify does not say which: %v", err)
	}
}

// ptr returns a pointer to v. (The expression new(v) needs Go 1.26.)
func ptr[T any](v T) *T { return &v }
