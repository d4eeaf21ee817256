package gateway

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// errField rejects a field of a request.
var errField = errors.New("invalid request")

// check reports what is wrong with a field's value.
type check func(jsonValue) error

// fields maps the names that a route accepts to their checks. A name that is not
// listed is removed from the request: llama-server would ignore it, or it is one
// that is not known to be safe.
type fields map[string]check

// with returns the union of f and others.
func (f fields) with(others ...fields) fields {
	out := fields{}
	for _, o := range append([]fields{f}, others...) {
		for name, c := range o {
			out[name] = c
		}
	}
	return out
}

func boolean(v jsonValue) error {
	if !v.isBool() {
		return errors.New("must be true or false")
	}
	return nil
}

// integer accepts whole numbers from low to high.
func integer(low, high float64) check {
	return func(v jsonValue) error {
		if n := v.number(); !v.isNumber() || n != math.Trunc(n) || n < low || n > high {
			return fmt.Errorf("must be a whole number from %.0f to %.0f", low, high)
		}
		return nil
	}
}

// number accepts numbers between -float and float.
func number(v jsonValue) error {
	if n := v.number(); !v.isNumber() || n < -float || n > float {
		return fmt.Errorf("must be a number from %g to %g", -float, float)
	}
	return nil
}

// text accepts strings of at most that many bytes, as they are written in JSON.
func text(limit int) check {
	return func(v jsonValue) error {
		if !v.isString() {
			return errors.New("must be a string")
		}
		return atMost(limit)(v)
	}
}

// atMost accepts any value of at most that many bytes.
func atMost(limit int) check {
	return func(v jsonValue) error {
		if len(v) > limit {
			return fmt.Errorf("must be shorter than %d bytes", limit)
		}
		return nil
	}
}

// list accepts arrays of at most limit elements that each pass.
func list(limit int, element check) check {
	return func(v jsonValue) error {
		if !v.isArray() {
			return errors.New("must be an array")
		}
		n := 0
		for e := range v.elements() {
			if n++; n > limit {
				return fmt.Errorf("must have at most %d elements", limit)
			}
			if err := element(e); err != nil {
				return fmt.Errorf("element %d %w", n-1, err)
			}
		}
		return nil
	}
}

// object accepts objects whose members pass; others are left to llama-server.
func object(members fields) check {
	return func(v jsonValue) error {
		if !v.isObject() {
			return errors.New("must be an object")
		}
		seen := map[string]bool{}
		for name, member := range v.members() {
			c, ok := members[name]
			if !ok || member.isNull() {
				continue
			}
			if seen[name] {
				return fmt.Errorf("has two members %q", name)
			}
			seen[name] = true
			if err := c(member); err != nil {
				return fmt.Errorf("member %q %w", name, err)
			}
		}
		return nil
	}
}

// anyOf accepts what one of the checks accepts.
func anyOf(checks ...check) check {
	return func(v jsonValue) error {
		var err error
		for _, c := range checks {
			if err = c(v); err == nil {
				return nil
			}
		}
		return err
	}
}

// internal rejects a field that llama-server passes to itself between its parts.
// Empty values, as clients send that list every field, do nothing.
func internal(v jsonValue) error {
	if slices.Contains([]string{"null", "false", "[]", `""`, "{}"}, string(v)) {
		return nil
	}
	return errors.New("is internal to llama-server and not accepted")
}

const (
	int32Max = math.MaxInt32
	// safeInteger is the largest integer that every JSON parser reads alike.
	safeInteger = 1<<53 - 1
	// float bounds numbers that llama-server stores as a C float.
	float = 1e9
	// window bounds the tokens that a penalty looks back on. llama-server
	// allocates as many for the slot, and scans them for each token.
	window = 1 << 18
	// maxBreakers bounds the DRY sampler's breakers: for each llama-server
	// compares every token of the vocabulary, while all other requests wait.
	maxBreakers = 32
	// maxPrompts bounds the prompts of one request, each of which becomes a task.
	maxPrompts = 1024
	// maxProbabilities bounds the alternatives that are listed for each token.
	maxProbabilities = 1000
)

// samplingFields are those of make_llama_cmpl_schema in server-schema.cpp, with its
// limits, and limits of our own where it has none that protect the server.
func samplingFields() fields {
	f := fields{
		"n_predict": integer(-1, int32Max), "max_tokens": integer(-1, int32Max), "max_completion_tokens": integer(-1, int32Max),
		"n_indent": integer(0, 4096), "n_keep": integer(-1, int32Max), "n_discard": integer(0, int32Max),
		"n_cmpl": integer(1, 256), "n": integer(1, 256), "n_cache_reuse": integer(0, int32Max),
		"t_max_predict_ms": integer(-1, safeInteger), "sse_ping_interval": integer(-1, 86400), "seed": integer(-safeInteger, safeInteger),
		"top_k": integer(-1, int32Max), "min_keep": integer(0, 1<<20), "mirostat": integer(0, 2),
		"repeat_last_n": integer(0, window), "dry_penalty_last_n": integer(0, window), "dry_allowed_length": integer(0, int32Max),
		"n_probs": integer(0, maxProbabilities), "top_logprobs": integer(0, maxProbabilities),
		"logprobs":                anyOf(boolean, integer(0, maxProbabilities)),
		"reasoning_budget_tokens": integer(-1, int32Max), "thinking_budget_tokens": integer(-1, int32Max),
		"id_slot": integer(-1, 1024),

		"stop":                  anyOf(text(4096), list(128, text(4096))),
		"samplers":              anyOf(text(64), list(32, text(64))),
		"dry_sequence_breakers": list(maxBreakers, text(256)),
		"response_fields":       list(64, text(256)),
		"lora":                  list(64, object(fields{"id": integer(0, int32Max), "scale": number})),
		"logit_bias":            logitBias,
		"stream_options":        object(fields{"include_usage": boolean}),

		"grammar": checkGrammarField, "json_schema": checkSchema, "grammar_lazy": internal, "grammar_triggers": internal, "grammar_type": internal,
		"preserved_tokens": internal, "chat_format": internal, "chat_parser": internal, "generation_prompt": internal, "message_delimiters": internal,
		"reasoning_budget_start_tag": internal, "reasoning_budget_end_tag": internal, "reasoning_budget_end_tags": internal,

		"reasoning_format": text(64), "reasoning_effort": text(64), "reasoning_budget_message": text(4096),
		"continue_final_message": anyOf(boolean, text(64)),
		// Not read, or only to say that it is not supported.
		"model": text(4096), "user": text(4096), "best_of": integer(-1, int32Max), "suffix": text(1 << 20),
	}
	for _, name := range []string{
		"verbose", "timings_per_token", "stream", "cache_prompt", "return_tokens", "return_progress", "backend_sampling",
		"post_sampling_probs", "ignore_eos", "echo", "parse_tool_calls", "reasoning_control",
	} {
		f[name] = boolean
	}
	for _, name := range []string{
		"top_p", "min_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "typical_p", "temperature", "dynatemp_range",
		"dynatemp_exponent", "repeat_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier", "dry_base",
		"mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay",
	} {
		f[name] = number
	}
	return f
}

// logitBias accepts [[token or text, bias], …] and {"token or text": bias, …}.
func logitBias(v jsonValue) error {
	const limit = 1 << 14
	if v.isArray() {
		return list(limit, atMost(1024))(v)
	}
	if !v.isObject() {
		return errors.New("must be an array or an object")
	}
	n := 0
	for range v.rawMembers() {
		if n++; n > limit {
			return fmt.Errorf("must have at most %d members", limit)
		}
	}
	return nil
}

func anything(jsonValue) error { return nil }

// completionFields are those of /completion.
func completionFields() fields { return samplingFields().with(fields{"prompt": prompt}) }

// infillFields are those of /infill.
func infillFields() fields {
	return samplingFields().with(fields{
		"prompt": text(maxBody), "input_prefix": text(maxBody), "input_suffix": text(maxBody),
		"input_extra": list(4096, object(fields{"text": text(maxBody), "filename": text(4096)})),
	})
}

// chatFields are those of /v1/chat/completions and /apply-template.
func chatFields() fields {
	return samplingFields().with(fields{
		"messages": messages, "tools": tools, "tool_choice": atMost(4096), "parallel_tool_calls": boolean,
		"add_generation_prompt": boolean, "chat_template_kwargs": templateArguments, "response_format": responseFormat,
	})
}

// responsesFields are those of /v1/responses, which llama-server converts to those
// of a chat.
func responsesFields() fields {
	return chatFields().with(fields{
		"input": responsesInput, "instructions": text(maxBody), "max_output_tokens": integer(-1, int32Max),
		"reasoning": object(fields{"effort": text(64)}), "previous_response_id": text(4096),
		"messages": internal,
	})
}

// anthropicFields are those of /v1/messages. llama-server copies only these to a
// chat.
func anthropicFields() fields {
	return fields{
		"messages": anthropicMessages, "system": anything, "tools": tools, "tool_choice": atMost(4096),
		"stop_sequences": list(128, text(4096)), "max_tokens": integer(-1, int32Max), "temperature": number,
		"top_p": number, "top_k": integer(-1, int32Max), "stream": boolean, "chat_template_kwargs": templateArguments,
		"thinking": object(fields{"type": text(64), "budget_tokens": integer(-1, int32Max)}),
		"metadata": object(fields{"user_id": text(4096)}), "model": text(4096),
	}
}

// templateArguments are values for the model's chat template, which may loop as
// often as they say.
func templateArguments(v jsonValue) error {
	if !v.isObject() {
		return errors.New("must be an object")
	}
	return atMost(64 << 10)(v)
}

// embeddingFields are those of /v1/embeddings.
func embeddingFields() fields {
	return fields{
		"input": prompt, "content": prompt, "encoding_format": text(64), "embd_normalize": integer(-1, 64), "model": text(4096),
	}
}

// rerankFields are those of /v1/rerank.
func rerankFields() fields {
	documents := list(maxPrompts, text(maxBody))
	return fields{
		"query": text(maxBody), "documents": documents, "texts": documents, "top_n": integer(0, int32Max),
		"return_text": boolean, "model": text(4096),
	}
}

func tokenizeFields() fields {
	return fields{"content": prompt, "add_special": boolean, "parse_special": boolean, "with_pieces": boolean, "model": text(4096)}
}

func detokenizeFields() fields {
	return fields{"tokens": list(1<<22, integer(-1, int32Max)), "model": text(4096)}
}

// slotFields are those of POST /slots/ID.
func slotFields() fields { return fields{"filename": text(255), "model": text(4096)} }

// controlFields are those of /models/load and /models/unload.
func controlFields() fields { return fields{"model": text(4096), "wait": boolean} }

// filterFields checks the fields of a request and returns its body without those
// that are not accepted, and their names.
func filterFields(body []byte, accepted fields) (filtered []byte, removed []string, err error) {
	v, err := parseJSON(body)
	if err != nil {
		return nil, nil, err
	}
	if !v.isObject() {
		return nil, nil, fmt.Errorf("%w: the body must be an object", errField)
	}
	var kept [][2]jsonValue
	seen := map[string]bool{}
	size := 0
	for rawName, value := range v.rawMembers() {
		name := rawName.text()
		c, ok := accepted[name]
		if !ok {
			removed = append(removed, name)
			continue
		}
		if seen[name] {
			return nil, nil, fmt.Errorf("%w: %q", errDuplicate, name)
		}
		seen[name] = true
		if !value.isNull() {
			if err := c(value); err != nil {
				return nil, nil, fmt.Errorf("%w: %q %w", errField, name, err)
			}
		}
		kept = append(kept, [2]jsonValue{rawName, value})
		size += len(rawName) + len(value) + 2
	}
	if removed == nil {
		return body, nil, nil
	}
	filtered = append(make([]byte, 0, size+2), '{')
	for i, member := range kept {
		if i > 0 {
			filtered = append(filtered, ',')
		}
		filtered = append(append(append(filtered, member[0]...), ':'), member[1]...)
	}
	return append(filtered, '}'), removed, nil
}
