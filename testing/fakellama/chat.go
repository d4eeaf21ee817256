package fakellama

import (
	"encoding/json"
	"net/http"
	"time"
)

// chat answers /v1/chat/completions, as far as clients in OpenAI's style need it.
func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var in struct {
		request
		Messages []message `json:"messages"`
	}
	if !decode(w, r, &in) {
		return
	}
	prompt, bad := s.format(in.Messages)
	if bad != nil {
		writeError(w, bad)
		return
	}
	in.Prompt = json.RawMessage(encode(prompt))
	if in.Stream {
		s.chatStream(w, r, &in.request)
		return
	}
	prompts, _ := s.promptTokens(in.Prompt) // a string is always a prompt
	t := &task{s: s, req: &in.request, prompt: prompts[0], reply: s.script.Reply}
	if err := t.generate(r.Context(), func(event) error { return nil }); err != nil {
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, map[string]any{
		"id": "chatcmpl-fake", "object": "chat.completion", "created": time.Now().Unix(), "model": s.script.Alias,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": t.finishReason(),
			"message": message{Role: "assistant", Content: t.text},
		}},
		"usage": map[string]int{
			"prompt_tokens": len(t.prompt), "completion_tokens": len(t.sampled), "total_tokens": len(t.prompt) + len(t.sampled),
		},
	})
}

func (t *task) finishReason() string {
	if t.stop == "limit" {
		return "length"
	}
	return "stop"
}

// chatStream writes chunks of the chat completion and the [DONE] that ends them.
func (s *Server) chatStream(w http.ResponseWriter, r *http.Request, req *request) {
	prompts, _ := s.promptTokens(req.Prompt) // a string is always a prompt
	t := &task{s: s, req: req, prompt: prompts[0], reply: s.script.Reply}
	o := &out{w: w, flush: http.NewResponseController(w), s: s, ctx: r.Context(), end: "\n"}
	chunk := func(delta map[string]any, finish any) []byte {
		return encode(map[string]any{
			"choices": []any{map[string]any{"finish_reason": finish, "index": 0, "delta": delta}},
			"created": time.Now().Unix(), "id": "chatcmpl-fake", "model": s.script.Alias,
			"system_fingerprint": "fakellama", "object": "chat.completion.chunk",
		})
	}
	err := o.event(chunk(map[string]any{"role": "assistant", "content": nil}, nil))
	if err == nil {
		err = t.generate(r.Context(), func(e event) error {
			return o.event(chunk(map[string]any{"content": e.Content}, nil))
		})
	}
	if err == nil {
		err = o.event(chunk(map[string]any{}, t.finishReason()))
	}
	if err == nil {
		err = o.write([]byte("data: [DONE]\n\n"))
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}
