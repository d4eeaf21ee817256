package fakellama

import (
	"errors"
	"net/http"
	"time"
)

// chat handles /v1/chat/completions, as far as OpenAI clients need it.
func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var in struct {
		request
		Messages []turn `json:"messages"`
	}
	if !decode(w, r, &in) {
		return
	}
	faults, rejected := s.begin(w, r)
	if rejected {
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
	t := &task{s: s, req: &in.request, prompt: prompt, reply: s.script.Reply, fault: faults}
	if in.Stream {
		s.chatStream(w, r, t)
		return
	}
	s.chatUnary(w, r, t)
}

// chatUnary responds without a stream. Faults occur at the same places as in a
// stream.
func (s *Server) chatUnary(w http.ResponseWriter, r *http.Request, t *task) {
	o := s.newOut(w, r, t.fault)
	o.whole = true
	err := o.event(nil) // the role
	if err == nil {
		err = t.generate(r.Context(), func(event) error { return o.event(nil) })
	}
	if err == nil {
		err = o.event(nil) // the final one
	}
	o.finish(r, map[string]any{
		"id": "chatcmpl-fake", "object": "chat.completion", "created": time.Now().Unix(), "model": s.script.Alias,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": t.finishReason(),
			"message": message{Role: "assistant", Content: t.text},
		}},
		"usage": t.usage(),
	}, err)
}

func (t *task) finishReason() string {
	if t.stop == "limit" {
		return "length"
	}
	return "stop"
}

// chatStream writes the chunks of the chat completion and the final [DONE].
func (s *Server) chatStream(w http.ResponseWriter, r *http.Request, t *task) {
	chunk := func(delta map[string]any, finish any) []byte {
		return encode(map[string]any{
			"choices": []any{map[string]any{"finish_reason": finish, "index": 0, "delta": delta}},
			"created": time.Now().Unix(), "id": "chatcmpl-fake", "model": s.script.Alias,
			"system_fingerprint": "fakellama", "object": "chat.completion.chunk",
		})
	}
	o := s.newOut(w, r, t.fault)
	o.said = func(text string) []byte { return chunk(map[string]any{"content": text}, nil) }
	err := o.event(chunk(map[string]any{"role": "assistant", "content": nil}, nil))
	if err == nil {
		err = t.generate(r.Context(), func(e event) error { return o.event(o.said(e.Content)) })
	}
	if err == nil && !o.has(KindNoFinal) {
		if err = o.event(chunk(map[string]any{}, t.finishReason())); err == nil {
			err = o.send([]byte("[DONE]"))
		}
	}
	if err != nil && !errors.Is(err, errEnded) {
		panic(http.ErrAbortHandler)
	}
	if o.has(KindHangEnd) {
		s.hang(r)
	}
}
