package fakellama

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"
)

// shape is the format of a completion's results.
type shape struct {
	partial func(t *task, e event) any
	final   func(t *task, stream bool) any
	done    bool // [DONE] ends a stream
}

// native is the format of llama-server's native endpoints.
func native() shape {
	return shape{
		partial: func(_ *task, e event) any { return e },
		final:   func(t *task, stream bool) any { return pick(t.final(stream), t.req.Fields) },
	}
}

// oai is the format of /v1/completions: to_json_oaicompat of server-task.cpp.
func oai() shape {
	return shape{
		done:    true,
		partial: func(t *task, e event) any { return t.textCompletion(e.Content, nil, e.Probs) },
		final: func(t *task, stream bool) any {
			text, probs := t.text, t.probs
			if stream {
				text, probs = "", nil
			}
			out := t.textCompletion(text, t.finishReason(), probs)
			out["usage"], out["timings"] = t.usage(), t.timings()
			return out
		},
	}
}

func (t *task) textCompletion(text string, finish any, probs []map[string]any) map[string]any {
	var logprobs any
	if len(probs) > 0 {
		logprobs = map[string]any{"content": probs}
	}
	return map[string]any{
		"choices": []any{map[string]any{"text": text, "index": t.index, "logprobs": logprobs, "finish_reason": finish}},
		"created": time.Now().Unix(), "model": t.s.script.Alias, "system_fingerprint": "fakellama",
		"object": "text_completion", "id": "chatcmpl-fake",
	}
}

func (t *task) usage() map[string]any {
	return map[string]any{
		"prompt_tokens": len(t.prompt), "completion_tokens": len(t.sampled), "total_tokens": len(t.prompt) + len(t.sampled),
		"prompt_tokens_details": map[string]int{"cached_tokens": t.cached},
	}
}

// completionOAI handles /v1/completions.
func (s *Server) completionOAI(w http.ResponseWriter, r *http.Request) {
	var req request
	if decode(w, r, &req) {
		s.run(w, r, &req, oai())
	}
}

// embeddingsOAI returns vectors in the format of
// format_embeddings_response_oaicompat.
func embeddingsOAI(model string, prompts [][]int32, format string) map[string]any {
	data, count := make([]any, len(prompts)), 0
	for i, p := range prompts {
		count += len(p)
		one := map[string]any{"index": i, "object": "embedding", "embedding": vector(p)}
		if format == "base64" {
			var raw []byte
			for _, x := range vector(p) {
				raw, _ = binary.Append(raw, binary.LittleEndian, x) // a number always has a size
			}
			one["embedding"], one["encoding_format"] = base64.StdEncoding.EncodeToString(raw), format
		}
		data[i] = one
	}
	return map[string]any{
		"model": model, "object": "list", "data": data, "usage": map[string]int{"prompt_tokens": count, "total_tokens": count},
	}
}

// off responds for an endpoint that a flag enables in llama-server. The fake never
// enables it.
func off(what, flag string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, errUnsupported("This server does not support "+what+". Start it with `"+flag+"`"))
	}
}

// embeddingRequest is a request of the embedding endpoints.
type embeddingRequest struct {
	Input   json.RawMessage `json:"input"`
	Content json.RawMessage `json:"content"`
	Model   *string         `json:"model"`
	Format  string          `json:"encoding_format"`
}
