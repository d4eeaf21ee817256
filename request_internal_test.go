package rocm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// wiretap is a server that records the bodies of requests and sends fixed answers.
type wiretap struct {
	stream, whole string // answers of /completion

	mu     sync.Mutex
	bodies map[string][]map[string]any // by path
}

func (w *wiretap) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/lora-adapters" && r.Method == http.MethodPost {
		_, _ = io.WriteString(out, `{"success":true}`)
		return
	}
	if r.URL.Path == "/lora-adapters" {
		_, _ = io.WriteString(out, `[{"id":0,"path":"a","scale":1},{"id":1,"path":"b","scale":1}]`)
		return
	}
	body := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	w.bodies[r.URL.Path] = append(w.bodies[r.URL.Path], body)
	w.mu.Unlock()
	switch {
	case r.URL.Path == "/apply-template":
		_, _ = io.WriteString(out, `{"prompt":"made by the template"}`)
	case body["stream"] == true:
		_, _ = io.WriteString(out, w.stream)
	default:
		_, _ = io.WriteString(out, w.whole)
	}
}

// taken returns the bodies sent to a path since the last call.
func (w *wiretap) taken(path string) []map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer delete(w.bodies, path)
	return w.bodies[path]
}

// tapped returns a model whose server is a wiretap.
func tapped(t *testing.T, w *wiretap) *Model {
	t.Helper()
	w.bodies = map[string][]map[string]any{}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	m := &Model{srv: &Server{Path: "m.gguf"}, api: llamaapi.New(srv.URL, srv.Client()), slots: 2}
	m.life, m.end = context.WithCancelCause(context.Background())
	t.Cleanup(func() { m.end(ErrClosed) })
	return m
}

const (
	oneToken    = `data: {"content":"a","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":4}` + "\n\n"
	finalEvent  = `data: {"content":"","tokens":[],"stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":4}` + "\n\n"
	wholeAnswer = `{"content":"a","tokens":[5],"stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":4}`
)

// TestRequestOnTheWire compares the body of /completion, member by member, under
// the names of tools/server/README.md in llama.cpp v0.5.0. A member that is not
// sent would get the server's default, which is not the contract's.
func TestRequestOnTheWire(t *testing.T) {
	tap := &wiretap{stream: oneToken + finalEvent}
	m := tapped(t, tap)
	plain := map[string]any{
		"prompt": "", "stream": true, "return_tokens": true, "n_predict": 3., "temperature": 0., "top_k": 0., "top_p": 1.,
		"min_p": 0., "repeat_penalty": 1., "cache_prompt": false,
	}
	yes, no, seed, slot := true, false, int64(0), 0
	for name, tc := range map[string]struct {
		set  func(*Request)
		want map[string]any // beside the plain ones
	}{
		"zero values":    {func(*Request) {}, nil},
		"prompt":         {func(r *Request) { r.Prompt = TextPrompt("a <b> & c") }, map[string]any{"prompt": "a <b> & c"}},
		"tokens":         {func(r *Request) { r.Prompt = TokenPrompt([]int32{7, 1, 300}) }, map[string]any{"prompt": []any{7., 1., 300.}}},
		"max tokens":     {func(r *Request) { r.MaxTokens = 11 }, map[string]any{"n_predict": 11.}},
		"temperature":    {func(r *Request) { r.Temperature = 0.25 }, map[string]any{"temperature": 0.25, "cache_prompt": true}},
		"top-k":          {func(r *Request) { r.TopK = 12 }, map[string]any{"top_k": 12.}},
		"top-p":          {func(r *Request) { r.TopP = 0.5 }, map[string]any{"top_p": 0.5}},
		"min-p":          {func(r *Request) { r.MinP = 0.125 }, map[string]any{"min_p": 0.125}},
		"penalty":        {func(r *Request) { r.RepeatPenalty = 1.5 }, map[string]any{"repeat_penalty": 1.5}},
		"seed of 0":      {func(r *Request) { r.Seed = &seed }, map[string]any{"seed": 0.}},
		"stop texts":     {func(r *Request) { r.Stop = []string{"\n\n", "<end>"} }, map[string]any{"stop": []any{"\n\n", "<end>"}}},
		"stop tokens":    {func(r *Request) { r.StopTokens = []int32{9} }, map[string]any{"timings_per_token": true}},
		"grammar":        {func(r *Request) { r.Grammar = `root ::= "x"` }, map[string]any{"grammar": `root ::= "x"`}},
		"schema":         {func(r *Request) { r.JSONSchema = json.RawMessage(`{"type":"null"}`) }, map[string]any{"json_schema": map[string]any{"type": "null"}}},
		"slot 0":         {func(r *Request) { r.Slot = &slot }, map[string]any{"id_slot": 0.}},
		"adapters":       {func(r *Request) { r.Adapters = []llamaapi.LoRAScale{{ID: 1, Scale: 0.5}} }, map[string]any{"lora": []any{map[string]any{"id": 1., "scale": 0.5}}}},
		"progress":       {func(r *Request) { r.Progress = func(llamaapi.Progress) {} }, map[string]any{"return_progress": true}},
		"greedy, reuse":  {func(r *Request) { r.ReuseCache = &yes }, map[string]any{"cache_prompt": true}},
		"sampled, fresh": {func(r *Request) { r.Temperature, r.ReuseCache = 1, &no }, map[string]any{"temperature": 1.}},
	} {
		t.Run(name, func(t *testing.T) {
			req := Request{GenerateConfig: inference.GenerateConfig{MaxTokens: 3}}
			tc.set(&req)
			s := m.Stream(t.Context(), req)
			if got := slices.Collect(s.All()); s.Err() != nil || !slices.Equal(got, []inference.Token{{ID: 5, Text: "a"}}) {
				t.Fatalf("%v, %v", got, s.Err())
			}
			want := maps.Clone(plain)
			maps.Copy(want, tc.want)
			sent(t, tap, want)
		})
	}
}

// sent compares the body of the only completion.
func sent(t *testing.T, tap *wiretap, want map[string]any) {
	t.Helper()
	bodies := tap.taken("/completion")
	if len(bodies) != 1 {
		t.Fatalf("%d completions, want one", len(bodies))
	}
	delete(bodies[0], "response_fields") // what pkg/llamaapi wants to read
	if !reflect.DeepEqual(bodies[0], want) {
		t.Errorf("sent %v\nwant %v", bodies[0], want)
	}
}

// Each method of the contract sends its options.
func TestContractOnTheWire(t *testing.T) {
	tap := &wiretap{stream: oneToken + finalEvent, whole: wholeAnswer}
	m := tapped(t, tap)
	opts := []inference.GenerateOption{
		inference.WithMaxTokens(9), inference.WithTemperature(0.5), inference.WithTopK(7), inference.WithTopP(0.75),
		inference.WithRepeatPenalty(1.25), inference.WithStopTokens(88),
	}
	want := map[string]any{
		"prompt": "p", "stream": true, "return_tokens": true, "n_predict": 9., "temperature": 0.5, "top_k": 7., "top_p": 0.75,
		"min_p": 0., "repeat_penalty": 1.25, "cache_prompt": true, "timings_per_token": true,
	}
	for range m.Generate(t.Context(), "p", opts...) {
		continue
	}
	sent(t, tap, want)
	if out, err := m.BatchGenerate(t.Context(), []string{"p"}, opts...); err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	sent(t, tap, want)
	for range m.Chat(t.Context(), []inference.Message{{Role: "user", Content: "hi"}}, opts...) {
		continue
	}
	want["prompt"] = "made by the template"
	sent(t, tap, want)
	if _, err := m.Classify(t.Context(), []string{"p"}, opts...); err != nil {
		t.Fatal(err)
	}
	want["prompt"], want["stream"], want["n_predict"] = "p", false, 1.
	delete(want, "timings_per_token")
	sent(t, tap, want)
}

// TestTemplateOnTheWire compares the body of /apply-template.
func TestTemplateOnTheWire(t *testing.T) {
	tap := &wiretap{stream: oneToken + finalEvent}
	m := tapped(t, tap)
	messages := []inference.Message{{Role: "system", Content: "Be <brief>."}, {Role: "user", Content: "hi"}}
	wantMessages := []any{map[string]any{"role": "system", "content": "Be <brief>."}, map[string]any{"role": "user", "content": "hi"}}
	for name, tc := range map[string]struct {
		vars map[string]any
		want map[string]any
	}{
		"no variables": {nil, map[string]any{"messages": wantMessages}},
		"variables":    {map[string]any{"enable_thinking": false, "n": 2}, map[string]any{"messages": wantMessages, "chat_template_kwargs": map[string]any{"enable_thinking": false, "n": 2.}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.Stream(t.Context(), Request{Prompt: ChatPrompt(messages), TemplateVars: tc.vars, GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
			if got := slices.Collect(s.All()); s.Err() != nil || len(got) != 1 {
				t.Fatalf("%v, %v", got, s.Err())
			}
			if got := tap.taken("/apply-template"); !reflect.DeepEqual(got, []map[string]any{tc.want}) {
				t.Errorf("sent %v\nwant %v", got, tc.want)
			}
			if got := tap.taken("/completion"); len(got) != 1 || got[0]["prompt"] != "made by the template" {
				t.Errorf("completed %v", got)
			}
		})
	}
}

// TestProgressIsReported checks that the caller receives the progress of the prompt.
func TestProgressIsReported(t *testing.T) {
	m := tapped(t, &wiretap{stream: `data: {"content":"","tokens":[0],"stop":false,"prompt_progress":{"total":9,"cache":2,"processed":5,"time_ms":31}}` + "\n\n" + oneToken + finalEvent})
	var progress []llamaapi.Progress
	s := m.Stream(t.Context(), Request{
		GenerateConfig: inference.GenerateConfig{MaxTokens: 1}, Progress: func(p llamaapi.Progress) { progress = append(progress, p) },
	})
	if got := slices.Collect(s.All()); s.Err() != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, s.Err())
	}
	if want := []llamaapi.Progress{{Total: 9, Cached: 2, Processed: 5, Elapsed: 31}}; !slices.Equal(progress, want) {
		t.Errorf("progress %+v, want %+v", progress, want)
	}
}

// A min-p outside of 0 to 1 is rejected before anything is sent.
func TestMinPRange(t *testing.T) {
	tap := &wiretap{stream: oneToken + finalEvent}
	m := tapped(t, tap)
	for _, bad := range []float32{-0.01, 1.01, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		s := m.Stream(t.Context(), Request{MinP: bad, GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
		if got := slices.Collect(s.All()); len(got) != 0 || !errors.Is(s.Err(), ErrInvalidOption) {
			t.Errorf("min-p %v: %v, %v", bad, got, s.Err())
		}
	}
	if got := tap.taken("/completion"); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
	for _, good := range []float32{0, 1} {
		s := m.Stream(t.Context(), Request{MinP: good, GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
		if got := slices.Collect(s.All()); len(got) != 1 || s.Err() != nil {
			t.Errorf("min-p %v: %v, %v", good, got, s.Err())
		}
	}
}
