package fakellama

import (
	"math"
	"time"
)

// event is a partial result with its members in the order of
// server_task_result_cmpl_partial::to_json.
type event struct {
	Index     int              `json:"index"`
	Content   string           `json:"content"`
	Tokens    []int32          `json:"tokens"`
	Stop      bool             `json:"stop"`
	Slot      int              `json:"id_slot"`
	Predicted int              `json:"tokens_predicted"`
	Evaluated int              `json:"tokens_evaluated"`
	Timings   map[string]any   `json:"timings,omitempty"`
	Progress  map[string]any   `json:"prompt_progress,omitempty"`
	Probs     []map[string]any `json:"completion_probabilities,omitempty"`
}

func (t *task) tokenEvent(id int32, text string) event {
	e := event{
		Index: t.index, Content: text, Tokens: []int32{id}, Slot: -1,
		Predicted: len(t.sampled), Evaluated: len(t.prompt),
	}
	if t.req.PerToken {
		e.Timings = t.timings()
	}
	if t.req.Probs > 0 {
		e.Probs = t.probs[len(t.probs)-1:]
	}
	return e
}

func (t *task) progressEvent() event {
	return event{
		Index: t.index, Tokens: []int32{0}, Slot: -1, Evaluated: len(t.prompt),
		Progress: map[string]any{
			"total": len(t.prompt), "cache": t.cached, "processed": len(t.prompt),
			"time_ms": time.Since(t.started).Milliseconds(),
		},
	}
}

// final is the last result, with the members of server_task_result_cmpl_final.
func (t *task) final(stream bool) map[string]any {
	out := map[string]any{
		"index": t.index, "content": t.text, "tokens": []int32{}, "id_slot": t.slot, "stop": true,
		"model": t.s.script.Alias, "tokens_predicted": len(t.sampled), "tokens_evaluated": len(t.prompt),
		"generation_settings": map[string]any{"n_predict": t.req.limit(), "stream": stream},
		"prompt":              t.s.vocab.text(t.prompt),
		"has_new_line":        false, "truncated": t.full, "stop_type": t.stop, "stopping_word": t.word,
		"tokens_cached": len(t.prompt) + len(t.sampled) - 1, "timings": t.timings(),
	}
	switch {
	case stream:
		out["content"] = ""
	case t.req.Tokens:
		out["tokens"] = t.sampled
	}
	if !stream && len(t.probs) > 0 {
		out["completion_probabilities"] = t.probs
	}
	return out
}

func (t *task) timings() map[string]any {
	prompt, gen := ms(t.first.Sub(t.started)), ms(time.Since(t.first))
	computed, steps := len(t.prompt)-t.cached, max(len(t.sampled)-1, 0)
	return map[string]any{
		"cache_n": t.cached, "prompt_n": computed, "prompt_ms": prompt,
		"prompt_per_token_ms": per(prompt, computed), "prompt_per_second": rate(computed, prompt),
		"predicted_n": len(t.sampled), "predicted_ms": gen,
		"predicted_per_token_ms": per(gen, steps), "predicted_per_second": rate(steps, gen),
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func per(ms float64, n int) float64 {
	if n <= 0 {
		return 0
	}
	return ms / float64(n)
}

func rate(n int, ms float64) float64 {
	if ms <= 0 {
		return 0
	}
	return float64(n) * 1000 / ms
}

// probsOf returns the entry of completion_probabilities for a token. Its values
// are those before any bias, so that the most likely token comes first.
func (t *task) probsOf(model *sampler, likely, id int32, text string) map[string]any {
	name, list := "logprob", "top_logprobs"
	value := func(lp float32) float64 { return float64(lp) }
	if t.req.Post {
		name, list = "prob", "top_probs"
		value = func(lp float32) float64 { return math.Exp(float64(lp)) }
	}
	cands := model.candidates(likely, t.req.Probs)
	top := make([]map[string]any, len(cands))
	own := cands[len(cands)-1] // no more than that where it is not among them
	for i, c := range cands {
		if c.id == id {
			own = c
		}
		piece := t.s.vocab.piece(c.id)
		top[i] = map[string]any{"id": c.id, "token": piece, "bytes": numbers(piece), name: value(c.logprob)}
	}
	return map[string]any{
		"id": id, "token": text, "bytes": numbers(text), name: value(own.logprob), list: top,
	}
}

// numbers returns the bytes of a text as JSON numbers.
func numbers(s string) []int {
	out := make([]int, len(s))
	for i := range len(s) {
		out[i] = int(s[i])
	}
	return out
}

// pick returns the members that response_fields lists.
func pick(result map[string]any, fields []string) any {
	if len(fields) == 0 {
		return result
	}
	out := map[string]any{}
	for _, f := range fields {
		if v, ok := result[f]; ok {
			out[f] = v
		}
	}
	return out
}
