package llamaapi

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
)

// bodies returns a client of a server that records the last body sent to each path.
func bodies(t *testing.T, answer string) (*Client, map[string]any) {
	t.Helper()
	got := map[string]any{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("body of %s: %v", r.URL.Path, err)
		}
		got[r.URL.Path] = body // read after the request
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(srv.Close)
	return New(srv.URL, srv.Client()), got
}

// TestCompletionBody checks the body of /completion, member by member, with the names in
// tools/server/README.md of llama.cpp v0.5.0; the server ignores unknown members.
func TestCompletionBody(t *testing.T) {
	c, got := bodies(t, `{"stop":true,"stop_type":"limit"}`)
	fields := []any{
		"index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated",
		"truncated", "stop_type", "stopping_word", "tokens_cached", "timings", "completion_probabilities",
	}
	plain := map[string]any{"prompt": "x", "stream": false, "return_tokens": true, "response_fields": fields}
	n, zero, half, seed, yes, no := 7, 0, float32(0.5), int64(-1), true, false
	nothing := float32(0)
	for name, tc := range map[string]struct {
		set  func(*CompletionRequest)
		want map[string]any
	}{
		"defaults":      {func(*CompletionRequest) {}, nil},
		"tokens":        {func(r *CompletionRequest) { r.Prompts = []Prompt{TokenPrompt(3, 4)} }, map[string]any{"prompt": []any{3., 4.}}},
		"media":         {func(r *CompletionRequest) { r.Prompts = []Prompt{{Text: "see", Media: [][]byte{{1, 2}}}} }, map[string]any{"prompt": map[string]any{"prompt_string": "see", "multimodal_data": []any{"AQI="}}}},
		"max tokens":    {func(r *CompletionRequest) { r.MaxTokens = &n }, map[string]any{"n_predict": 7.}},
		"no tokens":     {func(r *CompletionRequest) { r.MaxTokens = &zero }, map[string]any{"n_predict": 0.}},
		"temperature":   {func(r *CompletionRequest) { r.Temperature = &half }, map[string]any{"temperature": 0.5}},
		"greedy":        {func(r *CompletionRequest) { r.Temperature = &nothing }, map[string]any{"temperature": 0.}},
		"top-k":         {func(r *CompletionRequest) { r.TopK = &n }, map[string]any{"top_k": 7.}},
		"all of top-k":  {func(r *CompletionRequest) { r.TopK = &zero }, map[string]any{"top_k": 0.}},
		"top-p":         {func(r *CompletionRequest) { r.TopP = &half }, map[string]any{"top_p": 0.5}},
		"min-p":         {func(r *CompletionRequest) { r.MinP = &half }, map[string]any{"min_p": 0.5}},
		"no min-p":      {func(r *CompletionRequest) { r.MinP = &nothing }, map[string]any{"min_p": 0.}},
		"penalty":       {func(r *CompletionRequest) { r.RepeatPenalty = &half }, map[string]any{"repeat_penalty": 0.5}},
		"penalised":     {func(r *CompletionRequest) { r.RepeatLastN = &n }, map[string]any{"repeat_last_n": 7.}},
		"seed":          {func(r *CompletionRequest) { r.Seed = &seed }, map[string]any{"seed": -1.}},
		"stop":          {func(r *CompletionRequest) { r.Stop = []string{"\n", "<&>"} }, map[string]any{"stop": []any{"\n", "<&>"}}},
		"stop ids":      {func(r *CompletionRequest) { r.StopIDs = []int32{1} }, nil},
		"grammar":       {func(r *CompletionRequest) { r.Grammar = "root ::= [a-z]" }, map[string]any{"grammar": "root ::= [a-z]"}},
		"schema":        {func(r *CompletionRequest) { r.JSONSchema = json.RawMessage(`{"type":"array"}`) }, map[string]any{"json_schema": map[string]any{"type": "array"}}},
		"probabilities": {func(r *CompletionRequest) { r.Probs = 3 }, map[string]any{"n_probs": 3.}},
		"post-sampling": {func(r *CompletionRequest) { r.PostSampling = true }, map[string]any{"post_sampling_probs": true}},
		"reuse":         {func(r *CompletionRequest) { r.CachePrompt = &yes }, map[string]any{"cache_prompt": true}},
		"no reuse":      {func(r *CompletionRequest) { r.CachePrompt = &no }, map[string]any{"cache_prompt": false}},
		"slot":          {func(r *CompletionRequest) { r.Slot = &n }, map[string]any{"id_slot": 7.}},
		"slot 0":        {func(r *CompletionRequest) { r.Slot = &zero }, map[string]any{"id_slot": 0.}},
		"adapters":      {func(r *CompletionRequest) { r.LoRA = []LoRAScale{{0, 0}, {2, 0.5}} }, map[string]any{"lora": []any{map[string]any{"id": 0., "scale": 0.}, map[string]any{"id": 2., "scale": 0.5}}}},
		"progress":      {func(r *CompletionRequest) { r.Progress = true }, map[string]any{"return_progress": true}},
		"another member": {func(r *CompletionRequest) { r.MaxTokens, r.Extra = &n, map[string]any{"n_predict": 2, "mirostat": 1} }, map[string]any{
			"n_predict": 2., "mirostat": 1.,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			req := request()
			tc.set(req)
			if _, err := c.Complete(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(plain)
			maps.Copy(want, tc.want)
			if !reflect.DeepEqual(got["/completion"], any(want)) {
				t.Errorf("whole: sent %v\nwant %v", got["/completion"], want)
			}
			if _, s := drain(t, c, req); s.Err() == nil {
				t.Error("an object is no stream, yet no error came")
			}
			want["stream"] = true
			if len(req.StopIDs) > 0 {
				want["timings_per_token"] = true
			}
			if !reflect.DeepEqual(got["/completion"], any(want)) {
				t.Errorf("stream: sent %v\nwant %v", got["/completion"], want)
			}
		})
	}
}

// TestTemplateBody checks the body of /apply-template.
func TestTemplateBody(t *testing.T) {
	c, got := bodies(t, `{"prompt":"p"}`)
	messages := []Message{{Role: "user", Content: "<hi>"}}
	wantMessages := []any{map[string]any{"role": "user", "content": "<hi>"}}
	for name, tc := range map[string]struct {
		o    TemplateOptions
		want map[string]any
	}{
		"messages":  {TemplateOptions{}, map[string]any{"messages": wantMessages}},
		"variables": {TemplateOptions{Vars: map[string]any{"enable_thinking": false}}, map[string]any{"messages": wantMessages, "chat_template_kwargs": map[string]any{"enable_thinking": false}}},
		"another":   {TemplateOptions{Extra: map[string]any{"tools": []any{}}}, map[string]any{"messages": wantMessages, "tools": []any{}}},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := c.ApplyTemplate(t.Context(), messages, tc.o); err != nil || p != "p" {
				t.Fatal(p, err)
			}
			if !reflect.DeepEqual(got["/apply-template"], any(tc.want)) {
				t.Errorf("sent %v\nwant %v", got["/apply-template"], tc.want)
			}
		})
	}
}

// TestTokenizeBody checks the body of /tokenize, whose default is to add no token before
// the text and to parse special tokens.
func TestTokenizeBody(t *testing.T) {
	c, got := bodies(t, `{"tokens":[]}`)
	for _, o := range []TokenizeOptions{{}, {AddSpecial: true}, {PlainSpecial: true}} {
		want := map[string]any{"content": "x", "add_special": o.AddSpecial, "parse_special": !o.PlainSpecial, "with_pieces": false}
		if _, err := c.Tokenize(t.Context(), "x", o); err != nil || !reflect.DeepEqual(got["/tokenize"], any(want)) {
			t.Errorf("sent %v, %v\nwant %v", got["/tokenize"], err, want)
		}
		want["with_pieces"] = true
		if _, err := c.TokenizePieces(t.Context(), "x", o); err != nil || !reflect.DeepEqual(got["/tokenize"], any(want)) {
			t.Errorf("sent %v, %v\nwant %v", got["/tokenize"], err, want)
		}
	}
}
