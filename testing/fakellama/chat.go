package fakellama

import (
	"net/http"
	"time"
)

// chat answers /v1/chat/completions, as far as clients in OpenAI's style need it.
func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var in struct {
		request
		Messages []turn `json:"messages"`
	}
	if !decode(w, r, &in) {
		return
	}
	text, files, bad := s.format(in.Messages)
	var prompt []int32
	switch {
	case bad != nil:
	case s.script.Vision:
		prompt, bad = s.mediaPrompt(text, files)
	default:
		prompt = s.vocab.tokenize(text, true)
	}
	if bad != nil {
		writeError(w, bad)
		return
	}
	if in.Stream {
		s.chatStream(w, r, &in.request, prompt)
		return
	}
	t := &task{s: s, req: &in.request, prompt: prompt, reply: s.script.Reply}
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
func (s *Server) chatStream(w http.ResponseWriter, r *http.Request, req *request, prompt []int32) {
	t := &task{s: s, req: req, prompt: prompt, reply: s.script.Reply}
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
