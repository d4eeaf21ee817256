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

// Prompt is one prompt: a text, token ids, or a text with media.
type Prompt struct {
	// Text is tokenised by the server; special tokens written in it count as such
	// and the model's begin-of-sequence token is put before it.
	Text string
	// Tokens are used as they are when Text is empty.
	Tokens []int32
	// Media are files (images, audio) in place of the markers in Text; the marker
	// is Props.MediaMarker. The server must have been started with a projector.
	Media [][]byte
}

// TextPrompt is a prompt of text alone.
func TextPrompt(text string) Prompt { return Prompt{Text: text} }

// TokenPrompt is a prompt of token ids alone.
func TokenPrompt(ids ...int32) Prompt { return Prompt{Tokens: ids} }

// MarshalJSON writes the forms that tokenize_input_subprompt in
// server-common.cpp understands.
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

// CompletionRequest is the body of /completion. Nil pointers and zero values
// leave the server's default in force.
type CompletionRequest struct {
	// Prompts to complete; the server runs them side by side on its slots.
	Prompts []Prompt `json:"-"`

	// MaxTokens bounds the tokens sampled per prompt; -1 for no bound.
	MaxTokens *int `json:"n_predict,omitempty"`
	// Temperature 0 is greedy.
	Temperature   *float32 `json:"temperature,omitempty"`
	TopK          *int     `json:"top_k,omitempty"`
	TopP          *float32 `json:"top_p,omitempty"`
	MinP          *float32 `json:"min_p,omitempty"`
	RepeatPenalty *float32 `json:"repeat_penalty,omitempty"`
	// RepeatLastN is how many tokens the penalty looks back on.
	RepeatLastN *int `json:"repeat_last_n,omitempty"`
	// Seed of the sampler; -1 for a random one.
	Seed *int64 `json:"seed,omitempty"`
	// Stop holds texts that end the completion; they are not part of it.
	Stop []string `json:"stop,omitempty"`
	// StopIDs holds token ids that end the completion; they are not part of it.
	// The server knows no such list: a Stream matches them and hangs up.
	StopIDs []int32 `json:"-"`
	// Grammar is GBNF, JSONSchema a schema; at most one of them.
	Grammar    string          `json:"grammar,omitempty"`
	JSONSchema json.RawMessage `json:"json_schema,omitempty"`
	// Probs asks for that many of the most likely tokens beside each sampled one.
	Probs int `json:"n_probs,omitempty"`
	// PostSampling gives Probs as probabilities after the sampler chain.
	PostSampling bool `json:"post_sampling_probs,omitempty"`
	// CachePrompt reuses what the slot already holds of the prompt (the default).
	CachePrompt *bool `json:"cache_prompt,omitempty"`
	// Slot pins the request to one slot.
	Slot *int `json:"id_slot,omitempty"`
	// LoRA sets the scales of adapters for this request alone.
	LoRA []LoRAScale `json:"lora,omitempty"`
	// Progress asks for events while the prompt is processed.
	Progress bool `json:"return_progress,omitempty"`
	// Extra holds any other member of the body; it wins over the ones above.
	Extra map[string]any `json:"-"`
}

// finalFields are what the final event is asked for: not the prompt and the
// settings, which the server would otherwise send back.
func finalFields() []string {
	return []string{
		"index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated",
		"truncated", "stop_type", "stopping_word", "tokens_cached", "timings", "completion_probabilities",
	}
}

// body is the request as it goes over the wire.
func (r *CompletionRequest) body(stream bool) (any, error) {
	switch {
	case len(r.Prompts) == 0:
		return nil, errors.New("completion: no prompt given")
	case r.Grammar != "" && len(r.JSONSchema) > 0:
		return nil, errors.New("completion: grammar and json schema exclude each other; give one of them")
	case len(r.JSONSchema) > 0 && !json.Valid(r.JSONSchema):
		return nil, errors.New("completion: the json schema is not valid json")
	case stream && len(r.Prompts) > 1:
		return nil, fmt.Errorf("completion: a stream takes one prompt, not %d; use Complete or a stream for each", len(r.Prompts))
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
		// Hanging up at a stop id means never to see the final event's timings.
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

// Completion starts one completion and returns its stream. The caller closes
// the stream, or reads it to its end.
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

// Complete runs all prompts at once and returns the results in their order.
// Nothing arrives before the last of them is done. StopIDs are applied to the
// result, the tokens behind them having been computed in vain.
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
		out[i].cutAt(r.StopIDs)
	}
	return out, nil
}
