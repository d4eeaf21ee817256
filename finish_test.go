//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestFinishReasonIsReported(t *testing.T) {
	for name, tt := range map[string]struct {
		script fakellama.Script
		config inference.GenerateConfig
		stop   []string
		read   func(*rocm.Stream)
		want   inference.FinishReason
	}{
		"end of the model": {fakellama.Script{Reply: "yes"}, inference.GenerateConfig{MaxTokens: 99}, nil, drain, inference.FinishStop},
		"stop text":        {fakellama.Script{Reply: "yes, sir"}, inference.GenerateConfig{MaxTokens: 99}, []string{","}, drain, inference.FinishStop},
		"max tokens":       {fakellama.Script{NeverEnds: true}, inference.GenerateConfig{MaxTokens: 3}, nil, drain, inference.FinishLength},
		"no tokens":        {fakellama.Script{NeverEnds: true}, inference.GenerateConfig{}, nil, drain, inference.FinishLength},
		"full context":     {fakellama.Script{NeverEnds: true, ContextLen: 40}, inference.GenerateConfig{MaxTokens: 99}, nil, drain, inference.FinishContext},
		"closed":           {fakellama.Script{NeverEnds: true}, inference.GenerateConfig{MaxTokens: 99}, nil, func(s *rocm.Stream) { s.Next(); _ = s.Close() }, inference.FinishCancelled},
		"invalid option":   {fakellama.Script{}, inference.GenerateConfig{MaxTokens: -1}, nil, drain, inference.FinishError},
		"failure":          {fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCut, AfterTokens: 2}}}, inference.GenerateConfig{MaxTokens: 99}, nil, drain, inference.FinishError},
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, tt.script)
			s := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("Tell me"), GenerateConfig: tt.config, Stop: tt.stop})
			if got := s.FinishReason(); got != inference.FinishNone {
				t.Errorf("%q before its end", got)
			}
			tt.read(s)
			if got := s.FinishReason(); got != tt.want || m.FinishReason() != tt.want {
				t.Errorf("the stream ended with %q, the model says %q; want %q (%v)", got, m.FinishReason(), tt.want, s.Err())
			}
		})
	}
}

func drain(s *rocm.Stream) {
	for range s.All() {
	}
}

// A prompt that does not fit is one condition, whatever the operation.
func TestPromptTooLongIsReported(t *testing.T) {
	m := load(t, fakellama.Script{ContextLen: 50})
	long := strings.Repeat("word ", 200)
	check := func(name string, err error) {
		t.Helper()
		var api *llamaapi.APIError
		if !errors.Is(err, rocm.ErrPromptTooLong) || !errors.Is(err, inference.ErrPromptTooLong) || !errors.As(err, &api) || api.ContextLen != 50 {
			t.Errorf("%s: %v", name, err)
		}
	}
	collect(m.Generate(t.Context(), long))
	check("Generate", m.Err())
	if got := m.FinishReason(); got != inference.FinishError {
		t.Errorf("ended with %q", got)
	}
	out, err := m.BatchGenerate(t.Context(), []string{"x", long})
	if err != nil || out[0].Err != nil {
		t.Errorf("the others of a batch: %v, %v", err, out[0].Err)
	}
	check("BatchGenerate", out[1].Err)
	_, err = m.Classify(t.Context(), []string{long})
	check("Classify", err)
}

// One prompt that fails does not lose the results of the others.
func TestClassifyReturnsPartialResults(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes"})
	prompts := []string{"one", "", "three", "", "five"}
	out, err := m.Classify(t.Context(), prompts)
	var batch *rocm.BatchError
	if !errors.As(err, &batch) || len(batch.Errs) != 2 || !errors.Is(batch.Errs[1], rocm.ErrInvalidOption) || !errors.Is(err, rocm.ErrInvalidOption) ||
		!strings.Contains(err.Error(), "prompt 1") || !strings.Contains(err.Error(), "1 other") {
		t.Errorf("%v; want a BatchError of prompts 1 and 3", err)
	}
	for i, r := range out {
		if (r.Token.Text == "") != (prompts[i] == "") {
			t.Errorf("prompt %d: %+v", i, r)
		}
	}
	seen := map[int]error{}
	for c := range m.ClassifyEach(t.Context(), prompts) {
		if seen[c.Index] = c.Err; (c.Err == nil) != (c.Token.Text != "") {
			t.Errorf("%+v", c)
		}
	}
	if len(seen) != len(prompts) || seen[0] != nil || seen[1] == nil {
		t.Errorf("yielded %v", seen)
	}
}

func TestClassifyEachMayBeLeft(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes", PromptDelay: time.Millisecond})
	n := 0
	for range m.ClassifyEach(t.Context(), make500("a prompt")) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 || m.Err() == nil && m.FinishReason() != inference.FinishCancelled {
		t.Errorf("%d results, %v, %q", n, m.Err(), m.FinishReason())
	}
	waitIdle(t, m)
}

func make500(prompt string) []string {
	out := make([]string, 500)
	for i := range out {
		out[i] = prompt
	}
	return out
}

// The cause of a context arrives beside the context's own error.
func TestContextCauseIsReported(t *testing.T) {
	cause := errors.New("the user left")
	check := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want the cause and context.Canceled", name, err)
		}
	}
	m := load(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	for range m.Generate(ctx, "Go on", inference.WithMaxTokens(1<<20)) {
		cancel(cause)
	}
	check("Generate", m.Err())
	_, err := m.Classify(ctx, []string{"x"})
	check("Classify", err)
	out, err := m.BatchGenerate(ctx, []string{"x"})
	check("BatchGenerate", err)
	check("a batch's result", out[0].Err)
	_, err = m.Tokenize(ctx, "x")
	check("Tokenize", err)
	_, err = new(rocm.Backend).Load(ctx, fakebundle.Use(t, fakellama.Script{}), rocm.Settings{})
	check("Load", err)
}
