//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Leaving the loop frees the slot and is not an error.
func TestBreakFreesTheSlot(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		m := load(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond})
		for range m.Generate(t.Context(), "Go on", inference.WithMaxTokens(100000)) {
			break
		}
		if err := m.Err(); err != nil {
			t.Errorf("after a break: %v", err)
		}
		waitIdle(t, m)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range m.Generate(ctx, "Go on", inference.WithMaxTokens(100000)) {
			cancel()
		}
		if err := m.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("after a cancel: %v", err)
		}
		waitIdle(t, m)
	})
}

// A call whose context has ended frees its slot beside the stream of another, which
// llama-server alone would not notice.
func TestAbandonedCallsFreeTheirSlots(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits four seconds, as a caller would; mage test runs it")
	}
	m := load(t, fakellama.Script{Slots: 2, NeverEnds: true, ContextLen: 1 << 20, TokenDelay: 5 * time.Millisecond, KeepsAbandoned: true})
	busy := func(n int) {
		t.Helper()
		poll.Until(t, fmt.Sprintf("%d busy slots", n), func() bool {
			slots, err := m.API().Slots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			computing := 0
			for _, s := range slots {
				if s.Processing {
					computing++
				}
			}
			return computing == n
		})
	}
	stream := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 20}})
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range stream.All() {
		}
	}()
	busy(1)
	ctx, cancel := context.WithCancel(t.Context())
	called := make(chan error, 1)
	go func() {
		_, err := m.API().Complete(ctx, &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt("And on")}})
		called <- err
	}()
	busy(2)
	cancel()
	if err := <-called; !errors.Is(err, context.Canceled) {
		t.Errorf("the call returned %v", err)
	}
	busy(1)
	select {
	case <-read:
		t.Errorf("the other stream ended: %v", stream.Err())
	default:
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	<-read
}

// A stream may be closed by another goroutine while it is read.
func TestStreamClosedFromOutside(t *testing.T) {
	m := load(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond})
	s := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 20}})
	if _, ok := s.Next(); !ok {
		t.Fatal(s.Err())
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for range s.All() {
	}
	if err := errors.Join(<-closed, s.Err()); err != nil {
		t.Errorf("a stream closed on purpose: %v", err)
	}
	waitIdle(t, m)
}

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

// A prompt that does not fit is the same condition in every operation.
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

// Fault 28: a stream cut in the middle of a rune or an event, or without its final
// event, is an error and never an end; what was yielded is valid UTF-8. An event
// that is large, and within the limit, does no harm; see llamaapi's TestFaults.
func TestFault28CutStreams(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for _, kind := range []fakellama.Kind{fakellama.KindCut, fakellama.KindCutRune, fakellama.KindNoFinal, fakellama.KindGarbage} {
			t.Run(string(kind), func(t *testing.T) {
				m := load(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: kind, AfterTokens: 4, Request: 1}}})
				got := collect(m.Generate(t.Context(), "Tell me"))
				if err := m.Err(); !errors.Is(err, llamaapi.ErrTruncated) && !errors.Is(err, llamaapi.ErrMalformed) {
					t.Errorf("got %v after %d tokens", err, len(got))
				}
				if !utf8.ValidString(text(got)) {
					t.Errorf("invalid UTF-8: %q", text(got))
				}
				if collect(m.Generate(t.Context(), "Tell me")); m.Err() != nil {
					t.Errorf("the next request: %v", m.Err())
				}
			})
		}
		tolerated := []fakellama.Fault{
			{Kind: fakellama.KindOversize, AfterTokens: 2, Bytes: 4 << 20, Request: 1},
			{Kind: fakellama.KindTrickle, Request: 1},
			{Kind: fakellama.KindHangEnd, Request: 1},
		}
		for _, fault := range tolerated {
			t.Run(string(fault.Kind), func(t *testing.T) {
				m := load(t, fakellama.Script{Faults: []fakellama.Fault{fault}})
				if got := collect(m.Generate(t.Context(), "Tell me")); m.Err() != nil || len(got) == 0 {
					t.Errorf("%d tokens, %v; this one does no harm", len(got), m.Err())
				}
			})
		}
	})
}

// The loop's error has the cause of the child's exit.
func TestFault21_CrashedServerEndsStream(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		m := load(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 3, Signal: int(syscall.SIGSEGV)}}})
		got := collect(m.Generate(t.Context(), "Tell me"))
		var exit *supervise.ExitError
		if err := m.Err(); !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV {
			t.Errorf("got %v after %d tokens, want the end by SIGSEGV", err, len(got))
		}
	})
}

// BenchmarkStream measures one token from a real child process to the caller's loop,
// including the work of the imitation.
func BenchmarkStream(b *testing.B) {
	fake := fakebundle.New(b, fakellama.Script{NeverEnds: true, ContextLen: 1 << 30})
	m, err := new(rocm.Backend).Load(b.Context(), fake.Model, rocm.Settings{Bundle: fake.Dir})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	s := m.Stream(b.Context(), rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 28}})
	defer func() { _ = s.Close() }()
	if _, ok := s.Next(); !ok {
		b.Fatal(s.Err())
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Next(); !ok {
			b.Fatal(s.Err())
		}
	}
}
