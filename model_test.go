//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func TestGenerate(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "Grüße an die 🌍!"})
	tokens := collect(m.Generate(t.Context(), "Hallo"))
	if err := m.Err(); err != nil {
		t.Fatal(err)
	}
	if got := text(tokens); got != "Grüße an die 🌍!" {
		t.Errorf("got %q", got)
	}
	for i, tok := range tokens {
		if !utf8.ValidString(tok.Text) {
			t.Errorf("token %d has invalid UTF-8: %q", i, tok.Text)
		}
	}
	g := m.Metrics()
	if g.PromptTokens == 0 || g.GeneratedTokens < len(tokens) || g.TotalDuration <= 0 {
		t.Errorf("metrics %+v for %d tokens", g, len(tokens))
	}
	info := m.Info()
	if m.ModelType() != "llama" || info.NumLayers != 30 || info.HiddenSize != 576 || info.QuantBits != 8 {
		t.Errorf("info %+v", info)
	}
	if got := collect(m.Generate(t.Context(), "Hallo", inference.WithMaxTokens(2))); len(got) != 2 {
		t.Errorf("%d tokens, want at most 2", len(got))
	}
	if got := collect(m.Generate(t.Context(), "Hallo", inference.WithMaxTokens(0))); len(got) != 0 || m.Err() != nil {
		t.Errorf("%d tokens and %v, want none of either", len(got), m.Err())
	}
	stop := tokens[1].ID
	if got := collect(m.Generate(t.Context(), "Hallo", inference.WithStopTokens(stop))); len(got) != 1 || got[0] != tokens[0] || m.Err() != nil {
		t.Errorf("got %v, %v; want the tokens before the stop token", got, m.Err())
	}
}

func TestChat(t *testing.T) {
	m := load(t, fakellama.Script{})
	messages := []inference.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Hi"}}
	first := collect(m.Chat(t.Context(), messages, inference.WithMaxTokens(20)))
	if len(first) == 0 || m.Err() != nil {
		t.Fatalf("%d tokens, %v", len(first), m.Err())
	}
	second := collect(m.Chat(t.Context(), messages, inference.WithMaxTokens(20)))
	if text(first) != text(second) {
		t.Errorf("at temperature 0: %q, then %q", text(first), text(second))
	}

	for _, none := range [][]inference.Message{nil, {}} {
		if got := collect(m.Chat(t.Context(), none)); len(got) > 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("a chat without messages gave %d tokens and %v", len(got), m.Err())
		}
	}

	broken := load(t, fakellama.Script{TemplateError: "no such filter"})
	collect(broken.Chat(t.Context(), messages))
	if err := broken.Err(); err == nil || !strings.Contains(err.Error(), "no such filter") || !strings.Contains(err.Error(), "smollm2") {
		t.Errorf("got %v, want the template's error and the model's name", err)
	}
}

func TestCloseEndsStreams(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		m := load(t, fakellama.Script{NeverEnds: true, Slots: 4, TokenDelay: time.Millisecond})
		var wg sync.WaitGroup
		streams := make([]*rocm.Stream, 4)
		for i := range streams {
			streams[i] = m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 20}})
			if _, ok := streams[i].Next(); !ok {
				t.Fatal(streams[i].Err())
			}
			wg.Go(func() {
				for range streams[i].All() {
				}
			})
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for _, s := range streams {
			if !errors.Is(s.Err(), rocm.ErrClosed) {
				t.Errorf("a loop ended with %v, want ErrClosed", s.Err())
			}
		}
		if err := m.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		collect(m.Generate(t.Context(), "x"))
		if !errors.Is(m.Err(), rocm.ErrClosed) {
			t.Errorf("Generate after Close: %v", m.Err())
		}
		if _, err := m.BatchGenerate(t.Context(), []string{"x"}); !errors.Is(err, rocm.ErrClosed) {
			t.Errorf("BatchGenerate after Close: %v", err)
		}
		if _, err := m.Classify(t.Context(), []string{"x"}); !errors.Is(err, rocm.ErrClosed) {
			t.Errorf("Classify after Close: %v", err)
		}
		if _, err := m.Tokenize(t.Context(), "x"); !errors.Is(err, rocm.ErrClosed) {
			t.Errorf("Tokenize after Close: %v", err)
		}
	})
}

// draining returns a model whose Close would wait an hour for a request that has not
// ended.
func draining(t *testing.T) *rocm.Model {
	t.Helper()
	return loadWith(t, fakellama.Script{NeverEnds: true, Slots: 4, TokenDelay: time.Millisecond}, rocm.Settings{Timeouts: rocm.Timeouts{Drain: time.Hour}})
}

func endless(ctx context.Context, m *rocm.Model, progress func(llamaapi.Progress)) *rocm.Stream {
	return m.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 20}, Progress: progress})
}

// Close ends streams that nobody is reading. Where it does not, this test hangs.
func TestCloseDoesNotWaitForReaders(t *testing.T) {
	t.Run("in the loop's own body", func(t *testing.T) {
		m := draining(t)
		n := 0
		for range m.Generate(t.Context(), "Go on", inference.WithMaxTokens(1<<20)) {
			if n++; n > 2 {
				t.Fatal("a token came after Close had returned")
			}
			if n == 2 {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if n != 2 || !errors.Is(m.Err(), rocm.ErrClosed) {
			t.Errorf("the loop ended after %d tokens with %v, want 2 and ErrClosed", n, m.Err())
		}
	})
	t.Run("a reader that is busy with a token", func(t *testing.T) {
		m := draining(t)
		s := endless(t.Context(), m, nil)
		busy, closed, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			for range s.All() {
				close(busy)
				<-closed
			}
		}()
		<-busy
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		close(closed)
		<-over
		if !errors.Is(s.Err(), rocm.ErrClosed) {
			t.Errorf("the loop ended with %v, want ErrClosed", s.Err())
		}
	})
	t.Run("a reader that is told of progress", func(t *testing.T) {
		m := draining(t)
		var err error
		s := endless(t.Context(), m, func(llamaapi.Progress) { err = errors.Join(err, m.Close()) })
		if _, ok := s.Next(); ok || err != nil || !errors.Is(s.Err(), rocm.ErrClosed) {
			t.Errorf("token %v, Close said %v, the stream %v", ok, err, s.Err())
		}
	})
	t.Run("streams that are not read on", func(t *testing.T) {
		m := draining(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var open []*rocm.Stream
		for i := range 4 {
			s := endless([]context.Context{t.Context(), ctx}[i%2], m, nil)
			if _, ok := s.Next(); !ok {
				t.Fatal(s.Err())
			}
			open = append(open, s)
		}
		cancel() // that of some, which Close does not wait for either
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		for i, s := range open {
			if _, ok := s.Next(); ok || !errors.Is(s.Err(), rocm.ErrClosed) {
				t.Errorf("stream %d: token %v, %v", i, ok, s.Err())
			}
		}
	})
}

// Errors wrap the cause of a context beside the context's own error.
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
	b := fakebundle.New(t, fakellama.Script{})
	_, err = new(rocm.Backend).Load(ctx, b.Model, rocm.Settings{Bundle: b.Dir})
	check("Load", err)
}
