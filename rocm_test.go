//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// TestMain lets this binary be the llama-server of a bundle.
func TestMain(m *testing.M) {
	os.Exit(fakebundle.Main(func() int { return torture.Main(m) }))
}

func load(t *testing.T, s fakellama.Script, opts ...inference.LoadOption) *rocm.Model {
	t.Helper()
	m, err := inference.LoadModel(fakebundle.Use(t, s), append(opts, inference.WithBackend(rocm.Name))...)
	if err != nil {
		t.Fatal(err)
	}
	model, ok := m.(*rocm.Model)
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

func text(tokens []inference.Token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString(t.Text)
	}
	return b.String()
}

func collect(seq func(func(inference.Token) bool)) []inference.Token {
	var out []inference.Token
	for t := range seq {
		out = append(out, t)
	}
	return out
}

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
	turns := []inference.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Hi"}}
	first := collect(m.Chat(t.Context(), turns, inference.WithMaxTokens(20)))
	if len(first) == 0 || m.Err() != nil {
		t.Fatalf("%d tokens, %v", len(first), m.Err())
	}
	again := collect(m.Chat(t.Context(), turns, inference.WithMaxTokens(20)))
	if text(first) != text(again) {
		t.Errorf("at temperature 0: %q, then %q", text(first), text(again))
	}

	for _, none := range [][]inference.Message{nil, {}} {
		if got := collect(m.Chat(t.Context(), none)); len(got) > 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("a chat without messages gave %d tokens and %v", len(got), m.Err())
		}
	}

	broken := load(t, fakellama.Script{TemplateError: "no such filter"})
	collect(broken.Chat(t.Context(), turns))
	if err := broken.Err(); err == nil || !strings.Contains(err.Error(), "no such filter") || !strings.Contains(err.Error(), "smollm2") {
		t.Errorf("got %v, want the template's error and the model's name", err)
	}
}

// Leaving the loop frees the slot, and is no failure.
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

func waitIdle(t *testing.T, m *rocm.Model) {
	t.Helper()
	for range 2000 {
		slots, err := m.API().Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		busy := false
		for _, s := range slots {
			busy = busy || s.Processing
		}
		if !busy {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the slot was not freed")
}

func TestCloseEndsLoops(t *testing.T) {
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

// draining gives a model whose Close would wait an hour for a request that is
// not over.
func draining(t *testing.T) *rocm.Model {
	t.Helper()
	path := fakebundle.Use(t, fakellama.Script{NeverEnds: true, Slots: 4, TokenDelay: time.Millisecond})
	s := rocm.Settings{}
	s.Timeouts.Drain = time.Hour
	m, err := (&rocm.Backend{}).Load(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func endless(ctx context.Context, m *rocm.Model, progress func(llamaapi.Progress)) *rocm.Stream {
	return m.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 20}, Progress: progress})
}

// Close ends what nobody reads on at the moment; a test of it that fails hangs.
func TestCloseWaitsForNoReader(t *testing.T) {
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

func TestClassify(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes"})
	prompts := []string{"one", "two", "three", "four", "five"}
	plain, err := m.Classify(t.Context(), prompts)
	if err != nil || len(plain) != len(prompts) {
		t.Fatalf("%d results, %v", len(plain), err)
	}
	with, err := m.Classify(t.Context(), prompts, inference.WithLogits())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range with {
		if plain[i].Logits != nil {
			t.Error("logits that nobody asked for")
		}
		if len(r.Logits) != m.Info().VocabSize {
			t.Fatalf("%d logits for a vocabulary of %d", len(r.Logits), m.Info().VocabSize)
		}
		best := 0
		for id, v := range r.Logits {
			if v > r.Logits[best] {
				best = id
			}
		}
		if int32(best) != r.Token.ID || r.Token.ID != plain[i].Token.ID {
			t.Errorf("prompt %d: sampled %d, most likely %d, without logits %d", i, r.Token.ID, best, plain[i].Token.ID)
		}
	}
	if g := m.Metrics(); g.GeneratedTokens != len(prompts) {
		t.Errorf("metrics %+v", g)
	}
}

func TestBatchGenerate(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 3}, inference.WithParallelSlots(3))
	var prompts []string
	for i := range 12 {
		prompts = append(prompts, strings.Repeat("word ", i+1))
	}
	out, err := m.BatchGenerate(t.Context(), prompts, inference.WithMaxTokens(15))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range out {
		if r.Err != nil {
			t.Fatalf("prompt %d: %v", i, r.Err)
		}
		alone := collect(m.Generate(t.Context(), prompts[i], inference.WithMaxTokens(15)))
		if text(r.Tokens) != text(alone) {
			t.Errorf("prompt %d in the batch gives %q, alone %q", i, text(r.Tokens), text(alone))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err = m.BatchGenerate(ctx, prompts)
	if !errors.Is(err, context.Canceled) || !errors.Is(out[11].Err, context.Canceled) {
		t.Errorf("cancelled: %v and %v", err, out[11].Err)
	}
	if none, err := m.BatchGenerate(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("no prompts: %d results, %v", len(none), err)
	}
}

// One prompt's failure does not touch the others.
func TestBatchErrorsArePerPrompt(t *testing.T) {
	m := load(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStatus, Request: 2, Status: 400, Type: "invalid_request_error", Message: "no"}}})
	out, err := m.BatchGenerate(t.Context(), []string{"a", "b", "c", "d"})
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, r := range out {
		if r.Err == nil {
			continue
		}
		failed++
		var api *llamaapi.APIError
		if !errors.As(r.Err, &api) || api.Status != 400 || api.Message != "no" {
			t.Errorf("got %v, want the server's status and message", r.Err)
		}
	}
	if failed != 1 {
		t.Errorf("%d prompts failed, want one", failed)
	}
}

// Fault 28: a stream cut in the middle of a rune or an event, or without its final
// event, is an error and never an end; what was yielded is valid UTF-8. An event
// that is large, and not too large, does no harm; see llamaapi's TestFaults.
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
		harmless := []fakellama.Fault{
			{Kind: fakellama.KindOversize, AfterTokens: 2, Bytes: 4 << 20, Request: 1},
			{Kind: fakellama.KindTrickle, Request: 1},
			{Kind: fakellama.KindHangEnd, Request: 1},
		}
		for _, fault := range harmless {
			t.Run(string(fault.Kind), func(t *testing.T) {
				m := load(t, fakellama.Script{Faults: []fakellama.Fault{fault}})
				if got := collect(m.Generate(t.Context(), "Tell me")); m.Err() != nil || len(got) == 0 {
					t.Errorf("%d tokens, %v; this one does no harm", len(got), m.Err())
				}
			})
		}
	})
}

// The death of the child reaches the loop with its cause.
func TestDeathInMidStream(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		m := load(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 3, Signal: int(syscall.SIGSEGV)}}})
		got := collect(m.Generate(t.Context(), "Tell me"))
		var exit *supervise.ExitError
		if err := m.Err(); !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV {
			t.Errorf("got %v after %d tokens, want the end by SIGSEGV", err, len(got))
		}
	})
}

// With a restart policy the next request finds a new process.
func TestRestart(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		path := fakebundle.Use(t, fakellama.Script{})
		s := rocm.Settings{}
		s.Restart.MinBackoff = time.Millisecond
		m, err := (&rocm.Backend{}).Load(t.Context(), path, s)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		want := text(collect(m.Generate(t.Context(), "Tell me")))
		for range 3 {
			if err := syscall.Kill(m.Server().Child.Pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if got := text(collect(m.Generate(t.Context(), "Tell me"))); m.Err() != nil || got != want {
				t.Errorf("after a death: %q, %v; want %q", got, m.Err(), want)
			}
		}
	})
}

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

func TestBadOptions(t *testing.T) {
	m := load(t, fakellama.Script{})
	nan := float32(math.NaN())
	for name, opt := range map[string]inference.GenerateOption{
		"max tokens": inference.WithMaxTokens(-1), "temperature": inference.WithTemperature(nan), "negative temperature": inference.WithTemperature(-1),
		"top-k": inference.WithTopK(-1), "top-p": inference.WithTopP(2), "penalty": inference.WithRepeatPenalty(nan),
	} {
		if got := collect(m.Generate(t.Context(), "x", opt)); len(got) != 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("%s: %d tokens, %v; want ErrOption", name, len(got), m.Err())
		}
	}
}

func TestTokenizer(t *testing.T) {
	m := load(t, fakellama.Script{})
	const want = "Grüße, 世界 🌍"
	ids, err := m.Tokenize(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Detokenize(t.Context(), ids)
	if err != nil || got != want {
		t.Errorf("%q became %q (%v)", want, got, err)
	}
	n, err := m.CountTokens(t.Context(), want)
	if err != nil || n < len(ids) {
		t.Errorf("%d tokens counted for %d (%v)", n, len(ids), err)
	}
	if _, err := m.Embed(t.Context(), []string{"x"}); !errors.Is(err, llamaapi.ErrNotSupported) {
		t.Errorf("embeddings of a model that was not loaded for them: %v", err)
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

// A bundle's directory may be anybody's: what is in the manifest's place is neither
// read without end nor waited for.
func TestBundleOfNoManifest(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"endless": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"FIFO":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, bundle.ManifestName)); err != nil {
			t.Fatal(err)
		}
		if _, err := locate.Find(dir); !errors.Is(err, bundle.ErrManifest) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The directory of a single model stands for it.
func TestLoadFolder(t *testing.T) {
	path := fakebundle.Use(t, fakellama.Script{Reply: "ok"})
	m, err := inference.LoadModel(filepath.Dir(path), inference.WithBackend(rocm.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if got := text(collect(m.Generate(t.Context(), "x"))); got != "ok" {
		t.Errorf("got %q, %v", got, m.Err())
	}
}
