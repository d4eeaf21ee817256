package llamaapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
)

// Prompt is one prompt: text, token ids, or text with media.
type Prompt struct {
	// Text is tokenised by the server. Special tokens written in it are parsed, and
	// the model's begin-of-sequence token is prepended.
	Text string
	// Tokens are used unchanged if Text is empty.
	Tokens []int32
	// Media are files (images, audio) that replace the markers in Text, in order.
	// The marker is Props.MediaMarker. The server must have been started with a
	// projector.
	Media [][]byte
}

// TextPrompt returns a prompt of text alone.
func TextPrompt(text string) Prompt { return Prompt{Text: text} }

// TokenPrompt returns a prompt of token ids alone.
func TokenPrompt(ids ...int32) Prompt { return Prompt{Tokens: ids} }

// MarshalJSON writes the forms that tokenize_input_subprompt in
// server-common.cpp accepts.
func (p Prompt) MarshalJSON() ([]byte, error) {
	switch {
	case len(p.Media) > 0:
		media := make([]string, len(p.Media))
		for i, m := range p.Media {
			media[i] = base64.StdEncoding.EncodeToString(m)
		}
		return encodeJSON(map[string]any{"prompt_string": p.Text, "multimodal_data": media})
	case p.Text == "" && len(p.Tokens) > 0:
		return json.Marshal(p.Tokens)
	}
	return encodeJSON(p.Text)
}

// CompletionRequest is the body of /completion. Nil pointers and zero values mean
// the server's default.
type CompletionRequest struct {
	// Prompts to complete; the server runs them in parallel on its slots.
	Prompts []Prompt `json:"-"`

	// MaxTokens limits the tokens sampled per prompt; -1 means no limit.
	MaxTokens *int `json:"n_predict,omitempty"`
	// Temperature 0 is greedy.
	Temperature   *float32 `json:"temperature,omitempty"`
	TopK          *int     `json:"top_k,omitempty"`
	TopP          *float32 `json:"top_p,omitempty"`
	MinP          *float32 `json:"min_p,omitempty"`
	RepeatPenalty *float32 `json:"repeat_penalty,omitempty"`
	// RepeatLastN is the number of last tokens that the penalty applies to.
	RepeatLastN *int `json:"repeat_last_n,omitempty"`
	// Seed of the sampler; -1 for a random one.
	Seed *int64 `json:"seed,omitempty"`
	// Stop lists stop strings. A stop string ends the completion and is not part of
	// its text.
	Stop []string `json:"stop,omitempty"`
	// StopIDs lists token ids that end the completion and are not part of it. The
	// server has no such parameter: a Stream matches the ids and closes the
	// connection.
	StopIDs []int32 `json:"-"`
	// Grammar is GBNF, JSONSchema a JSON schema; set at most one of them.
	Grammar    string          `json:"grammar,omitempty"`
	JSONSchema json.RawMessage `json:"json_schema,omitempty"`
	// Probs is the number of most likely tokens to return with each sampled token.
	Probs int `json:"n_probs,omitempty"`
	// PostSampling returns probabilities after the sampler chain instead of before.
	PostSampling bool `json:"post_sampling_probs,omitempty"`
	// CachePrompt reuses the part of the prompt that the slot has cached; the default
	// is true.
	CachePrompt *bool `json:"cache_prompt,omitempty"`
	// Slot pins the request to one slot.
	Slot *int `json:"id_slot,omitempty"`
	// LoRA sets the scales of adapters for this request alone.
	LoRA []LoRAScale `json:"lora,omitempty"`
	// Progress requests events while the prompt is processed.
	Progress bool `json:"return_progress,omitempty"`
	// Extra holds further members of the body; they override the ones above.
	Extra map[string]any `json:"-"`
}

// finalFields returns the members to request in the final event. The server would
// otherwise also echo the prompt and the settings.
func finalFields() []string {
	return []string{
		"index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated",
		"truncated", "stop_type", "stopping_word", "tokens_cached", "timings", "completion_probabilities",
	}
}

// body returns the request in its wire format.
func (r *CompletionRequest) body(stream bool) (any, error) {
	switch {
	case len(r.Prompts) == 0:
		return nil, errors.New("completion: no prompt")
	case r.Grammar != "" && len(r.JSONSchema) > 0:
		return nil, errors.New("completion: grammar and JSON schema are mutually exclusive; set one of them")
	case len(r.JSONSchema) > 0 && !json.Valid(r.JSONSchema):
		return nil, errors.New("completion: the JSON schema is not valid JSON")
	case stream && len(r.Prompts) > 1:
		return nil, fmt.Errorf("completion: a stream has one prompt, not %d; use Complete, or a stream for each", len(r.Prompts))
	}
	type plain CompletionRequest // without methods
	wire := struct {
		Prompt any `json:"prompt"`
		*plain
		Stream       bool     `json:"stream"`
		ReturnTokens bool     `json:"return_tokens"`
		PerToken     bool     `json:"timings_per_token,omitempty"`
		Fields       []string `json:"response_fields"`
	}{
		Prompt: r.Prompts, plain: (*plain)(r), Stream: stream, ReturnTokens: true,
		// A stream that closes at a stop id never receives the timings of the final event.
		PerToken: stream && len(r.StopIDs) > 0, Fields: finalFields(),
	}
	if len(r.Prompts) == 1 {
		wire.Prompt = r.Prompts[0]
	}
	if len(r.Extra) == 0 {
		return wire, nil
	}
	b, err := encodeJSON(wire)
	if err != nil {
		return nil, err
	}
	merged := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &merged); err != nil {
		return nil, err
	}
	all := make(map[string]any, len(merged)+len(r.Extra))
	for k, v := range merged {
		all[k] = v
	}
	maps.Copy(all, r.Extra)
	return all, nil
}

// Completion starts a completion and returns its stream. The caller closes the
// stream or reads it to the end.
func (c *Client) Completion(ctx context.Context, r *CompletionRequest) (*Stream, error) {
	body, err := r.body(true)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	resp, err := c.send(ctx, http.MethodPost, "/completion", body) //nolint:bodyclose // the stream closes it
	if err != nil {
		return nil, err
	}
	return newStream(ctx, c, start, resp.Body, r), nil
}

// Complete runs all prompts in parallel and returns the results in the order of
// the prompts, when the last one is done. StopIDs are applied to the results: the
// server still computes the tokens after them.
func (c *Client) Complete(ctx context.Context, r *CompletionRequest) ([]Completion, error) {
	body, err := r.body(false)
	if err != nil {
		return nil, err
	}
	b, err := c.fetch(ctx, http.MethodPost, "/completion", body)
	if err != nil {
		return nil, err
	}
	out, err := parseCompletions(b, len(r.Prompts))
	if err != nil {
		return nil, fmt.Errorf("completion: %w", err)
	}
	for i := range out {
		out[i].truncateAt(r.StopIDs)
	}
	return out, nil
}
