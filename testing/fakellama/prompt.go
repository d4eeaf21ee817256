package fakellama

import (
	"encoding/json"
)

// promptTokens parses the forms of tokenize_input_prompts: a string, ids, a mixture,
// an object with media, or an array of those.
func (s *Server) promptTokens(raw json.RawMessage) ([][]int32, *apiError) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && len(list) > 0 {
		mixed := true
		for _, item := range list {
			mixed = mixed && isNumber(item)
		}
		if !mixed {
			out := make([][]int32, 0, len(list))
			for _, item := range list {
				ids, err := s.onePrompt(item)
				if err != nil {
					return nil, err
				}
				out = append(out, ids)
			}
			return out, nil
		}
	}
	ids, err := s.onePrompt(raw)
	return [][]int32{ids}, err
}

func isNumber(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9')
}

func (s *Server) onePrompt(raw json.RawMessage) ([]int32, *apiError) {
	var text string
	if json.Unmarshal(raw, &text) == nil && len(raw) > 0 && raw[0] == '"' {
		return s.vocab.tokenize(text, true), nil
	}
	var ids []int32
	if len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &ids) == nil {
		for _, id := range ids {
			if !s.vocab.known(id) {
				return nil, errRequest("Prompt contains invalid tokens")
			}
		}
		return ids, nil
	}
	var object struct {
		Text  *string   `json:"prompt_string"`
		Media *[]string `json:"multimodal_data"`
	}
	if len(raw) > 0 && raw[0] == '{' && json.Unmarshal(raw, &object) == nil && object.Text != nil {
		if object.Media != nil {
			return s.multimodal(*object.Text, *object.Media)
		}
		return s.vocab.tokenize(*object.Text, true), nil
	}
	return nil, errRequest(`"prompt" elements must be a string, a list of tokens, a JSON object containing a prompt string, or a list of mixed strings & tokens.`)
}
