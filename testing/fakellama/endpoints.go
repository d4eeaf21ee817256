package fakellama

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Template is the chat template of /props and /apply-template.
const Template = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
	"{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

func (s *Server) props(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"default_generation_settings": map[string]any{
			"params": map[string]any{"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "n_predict": -1},
			"n_ctx":  s.script.ContextLen,
		},
		"total_slots": s.script.Slots, "model_alias": s.script.Alias, "model_path": s.script.ModelPath,
		"model_ftype": "F32", "modalities": map[string]bool{"vision": s.script.Vision, "audio": false, "video": false},
		"media_marker": s.script.MediaMarker, "endpoint_slots": true, "endpoint_props": false, "endpoint_metrics": false,
		"chat_template": Template, "bos_token": "", "eos_token": specials()[TokenEnd],
		"build_info": "fakellama", "is_sleeping": false,
	})
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	capabilities := []string{"completion"}
	if s.script.Vision {
		capabilities = append(capabilities, "multimodal")
	}
	about := map[string]any{"name": s.script.Alias, "model": s.script.Alias, "type": "model", "capabilities": capabilities}
	writeJSON(w, map[string]any{"models": []any{about}, "object": "list", "data": []any{map[string]any{
		"id": s.script.Alias, "object": "model", "owned_by": "llamacpp",
		"meta": map[string]any{"n_vocab": VocabSize(), "n_ctx_train": s.script.ContextLen},
	}}})
}

// listSlots returns the state of the slots, or their last state if decoding hangs.
func (s *Server) listSlots(w http.ResponseWriter, r *http.Request) {
	states := s.slots.snapshot()
	select {
	case <-s.wedged:
		if states = s.frozen; states == nil {
			s.hang(r)
		}
	default:
	}
	list := make([]map[string]any, len(states))
	idle := 0
	for i, st := range states {
		list[i] = map[string]any{"id": i, "n_ctx": s.script.ContextLen, "speculative": false, "is_processing": st.processing}
		if !st.processing {
			idle++
		}
		if st.task > 0 {
			list[i]["id_task"] = st.task
			list[i]["n_prompt_tokens"] = len(st.prompt) + st.decoded
			list[i]["n_prompt_tokens_processed"] = len(st.prompt) - st.cached
			list[i]["n_prompt_tokens_cache"] = st.cached
			list[i]["next_token"] = []any{map[string]any{
				"has_next_token": st.processing, "has_new_line": false, "n_remain": st.remain, "n_decoded": st.decoded,
			}}
		}
	}
	if idle == 0 && r.URL.Query().Get("fail_on_no_slot") != "" {
		writeError(w, &apiError{status: 503, Type: "unavailable_error", Message: "no slot available"})
		return
	}
	writeJSON(w, list)
}

func (s *Server) slotAction(w http.ResponseWriter, r *http.Request) {
	if !s.script.SlotSave {
		writeError(w, errUnsupported("This server does not support slots action. Start it with `--slot-save-path`"))
		return
	}
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		writeError(w, errRequest("Invalid slot ID"))
		return
	}
	var in struct {
		Filename string `json:"filename"`
	}
	if !decode(w, r, &in) {
		return
	}
	action := r.URL.Query().Get("action")
	if action != "erase" && (in.Filename == "" || strings.ContainsAny(in.Filename, "/\\")) {
		writeError(w, errRequest("Invalid filename"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch action {
	case "save":
		held := s.slots.swap(id, nil)
		s.slots.swap(id, held)
		s.saved[in.Filename] = held
		writeJSON(w, map[string]any{
			"id_slot": id, "filename": in.Filename, "n_saved": len(held),
			"n_written": 4 * len(held), "timings": map[string]any{"save_ms": 0.1},
		})
	case "restore":
		held, ok := s.saved[in.Filename]
		if !ok {
			writeError(w, errRequest("Unable to restore slot: no such file"))
			return
		}
		s.slots.swap(id, held)
		writeJSON(w, map[string]any{
			"id_slot": id, "filename": in.Filename, "n_restored": len(held),
			"n_read": 4 * len(held), "timings": map[string]any{"restore_ms": 0.1},
		})
	case "erase":
		writeJSON(w, map[string]any{"id_slot": id, "n_erased": len(s.slots.swap(id, nil))})
	default:
		writeError(w, errRequest("Invalid action"))
	}
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Content string `json:"content"`
		Parse   *bool  `json:"parse_special"`
		Pieces  bool   `json:"with_pieces"`
	}
	if !decode(w, r, &in) {
		return
	}
	ids := s.vocab.tokenize(in.Content, in.Parse == nil || *in.Parse)
	if !in.Pieces {
		writeJSON(w, map[string]any{"tokens": ids})
		return
	}
	list := make([]any, len(ids))
	for i, id := range ids {
		text := s.vocab.pieces[id]
		var piece any = text
		if strings.ToValidUTF8(text, "") != text {
			piece = numbers(text)
		}
		list[i] = map[string]any{"id": id, "piece": piece}
	}
	writeJSON(w, map[string]any{"tokens": list})
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Tokens []int32 `json:"tokens"`
	}
	if !decode(w, r, &in) {
		return
	}
	for _, id := range in.Tokens {
		if !s.vocab.known(id) {
			writeError(w, &apiError{status: 500, Type: "server_error", Message: fmt.Sprintf("token %d is not in the vocabulary", id)})
			return
		}
	}
	writeJSON(w, map[string]any{"content": s.vocab.text(in.Tokens)})
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// format applies the template to messages and returns their images.
func (s *Server) format(received []turn) (prompt string, files [][]byte, bad *apiError) {
	messages, files, bad := s.conversation(received)
	switch {
	case bad != nil:
		return "", nil, bad
	case s.script.TemplateError != "":
		return "", nil, &apiError{status: 500, Type: "server_error", Message: s.script.TemplateError}
	case s.script.Alternate && !alternating(messages):
		return "", nil, &apiError{status: 500, Type: "server_error", Message: "Conversation roles must alternate user/assistant/user/assistant/..."}
	case len(messages) == 0:
		return "", nil, errRequest("Expected 'messages' to be a non-empty array")
	}
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "<|im_start|>%s\n%s<|im_end|>\n", m.Role, m.Content)
	}
	b.WriteString("<|im_start|>assistant\n")
	return b.String(), files, nil
}

// alternating reports whether user and assistant alternate, as Gemma's template
// requires.
func alternating(messages []message) bool {
	if len(messages) > 0 && messages[0].Role == "system" {
		messages = messages[1:]
	}
	for i, m := range messages {
		if (m.Role == "user") != (i%2 == 0) {
			return false
		}
	}
	return true
}

func (s *Server) applyTemplate(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Messages []turn `json:"messages"`
	}
	if !decode(w, r, &in) {
		return
	}
	prompt, _, bad := s.format(in.Messages)
	if bad != nil {
		writeError(w, bad)
		return
	}
	writeJSON(w, map[string]string{"prompt": prompt})
}

func (s *Server) listLoRAs(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]any, len(s.loras))
	for i, scale := range s.loras {
		list[i] = map[string]any{"id": i, "path": s.script.Adapters[i], "scale": scale, "task_name": "", "prompt_prefix": ""}
	}
	writeJSON(w, list)
}

func (s *Server) setLoRAs(w http.ResponseWriter, r *http.Request) {
	var in []struct {
		ID    int     `json:"id"`
		Scale float32 `json:"scale"`
	}
	if !decode(w, r, &in) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.loras {
		s.loras[i] = 0
	}
	for _, l := range in {
		if l.ID >= 0 && l.ID < len(s.loras) {
			s.loras[l.ID] = l.Scale
		}
	}
	writeJSON(w, map[string]bool{"success": true})
}
