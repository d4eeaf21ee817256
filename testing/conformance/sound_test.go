package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// sound is a small backend that keeps every promise: a client of the fake server in
// this process. The mutants of the tests wrap its models.
type sound struct {
	// mutate, if set, changes the result of LoadModel.
	mutate func(inference.TextModel) inference.TextModel
	// loadAnything skips the check of the file.
	loadAnything bool
	// endless makes generations continue until the reader leaves.
	endless bool
}

func (sound) Name() string    { return "sound" }
func (sound) Available() bool { return true }

func (b sound) LoadModel(path string, _ ...inference.LoadOption) (inference.TextModel, error) {
	if !b.loadAnything {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(string(data), "GGUF") {
			return nil, fmt.Errorf("%s is not a gguf file", path)
		}
	}
	script := fakellama.Script{Slots: 3, ContextLen: 500, TokenDelay: 50 * time.Microsecond}
	if b.endless {
		script.NeverEnds, script.ContextLen = true, 1<<30
	}
	fake := fakellama.New(script)
	m := &soundModel{fake: fake, srv: httptest.NewServer(fake)}
	m.api = llamaapi.New(m.srv.URL, m.srv.Client())
	m.life, m.end = context.WithCancel(context.Background())
	if b.mutate != nil {
		return b.mutate(m), nil
	}
	return m, nil
}

var errClosed = errors.New("model is closed")

type soundModel struct {
	fake *fakellama.Server
	srv  *httptest.Server
	api  *llamaapi.Client
	life context.Context // its end is the model's
	end  context.CancelFunc

	mu      sync.Mutex
	err     error
	metrics inference.GenerateMetrics
}

func (m *soundModel) request(prompt string, opts []inference.GenerateOption) *llamaapi.CompletionRequest {
	cfg := inference.ApplyGenerateOpts(opts)
	return &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{llamaapi.TextPrompt(prompt)}, MaxTokens: &cfg.MaxTokens,
		Temperature: &cfg.Temperature, StopIDs: cfg.StopTokens,
	}
}

// run yields a completion and returns how it ended.
func (m *soundModel) run(ctx context.Context, r *llamaapi.CompletionRequest, yield func(inference.Token) bool) (inference.GenerateMetrics, error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)()
	s, err := m.api.Completion(ctx, r)
	if err == nil {
		for t := range s.All() {
			if m.life.Err() != nil || !yield(inference.Token(t)) {
				break
			}
		}
		err = s.Err()
	}
	if m.life.Err() != nil {
		err = errClosed
	}
	x := inference.GenerateMetrics{TotalDuration: time.Since(start)}
	if s != nil {
		f := s.Final()
		x.PromptTokens, x.GeneratedTokens = f.PromptTokens, f.PredictedTokens
		x.PrefillDuration, x.DecodeDuration = f.Timings.Prompt, f.Timings.Predicted
		x.DecodeTokensPerSec = float64(f.PredictedTokens) / x.TotalDuration.Seconds()
	}
	return x, err
}

func (m *soundModel) ended(x inference.GenerateMetrics, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.metrics, m.err = x, err
}

func (m *soundModel) Generate(ctx context.Context, prompt string, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) { m.ended(m.run(ctx, m.request(prompt, opts), yield)) }
}

func (m *soundModel) Chat(ctx context.Context, msgs []inference.Message, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		list := make([]llamaapi.Message, len(msgs))
		for i, msg := range msgs {
			list[i] = llamaapi.Message(msg)
		}
		prompt, err := m.api.ApplyTemplate(ctx, list, llamaapi.TemplateOptions{})
		if err != nil {
			m.ended(inference.GenerateMetrics{}, err)
			return
		}
		m.ended(m.run(ctx, m.request(prompt, opts), yield))
	}
}

func (m *soundModel) BatchGenerate(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.BatchResult, error) {
	out := make([]inference.BatchResult, len(prompts))
	var wg sync.WaitGroup
	for i, p := range prompts {
		wg.Go(func() {
			_, out[i].Err = m.run(ctx, m.request(p, opts), func(t inference.Token) bool {
				out[i].Tokens = append(out[i].Tokens, t)
				return true
			})
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

func (m *soundModel) Classify(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	if m.life.Err() != nil {
		return nil, errClosed
	}
	out := make([]inference.ClassifyResult, len(prompts))
	for i, p := range prompts {
		r := m.request(p, append(opts, inference.WithMaxTokens(1)))
		logits := inference.ApplyGenerateOpts(opts).ReturnLogits
		if logits {
			r.Probs = fakellama.VocabSize()
		}
		res, err := m.api.Complete(ctx, r)
		if err != nil {
			return nil, err
		}
		out[i].Token.ID = res[0].Tokens[0]
		if logits {
			if out[i].Logits, err = res[0].Positions[0].Logits(fakellama.VocabSize()); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (m *soundModel) ModelType() string { return "fake" }

func (m *soundModel) Info() inference.ModelInfo {
	return inference.ModelInfo{Architecture: "fake", VocabSize: fakellama.VocabSize(), NumLayers: 1, HiddenSize: 1}
}

func (m *soundModel) Metrics() inference.GenerateMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metrics
}

func (m *soundModel) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *soundModel) Close() error {
	m.end()
	m.fake.Close()
	m.srv.CloseClientConnections()
	m.srv.Close()
	return nil
}
