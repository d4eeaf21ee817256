package llamaapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
)

// Message is one message of a conversation.
type Message struct {
	// Role is "system", "user", "assistant" or "tool".
	Role string `json:"role"`
	// Content is the text of the message.
	Content string `json:"content"`
}

// TemplateOptions are further inputs of a chat template.
type TemplateOptions struct {
	// Vars sets variables of the template, for example enable_thinking.
	Vars map[string]any
	// Extra holds further members of the request, for example tools.
	Extra map[string]any
}

// ApplyTemplate formats the messages with the model's chat template
// (/apply-template) and returns the prompt. Completion of this prompt is equivalent
// to the server's own chat endpoint.
func (c *Client) ApplyTemplate(ctx context.Context, messages []Message, o TemplateOptions) (string, error) {
	in := map[string]any{"messages": messages}
	if len(o.Vars) > 0 {
		in["chat_template_kwargs"] = o.Vars
	}
	maps.Copy(in, o.Extra)
	var out struct {
		Prompt *string `json:"prompt"`
	}
	if err := c.call(ctx, http.MethodPost, "/apply-template", in, &out); err != nil {
		return "", fmt.Errorf("chat template: %w", err)
	}
	if out.Prompt == nil {
		return "", fmt.Errorf("chat template: %w: no prompt in the response", ErrMalformed)
	}
	return *out.Prompt, nil
}

// Chat applies the template and starts a completion of the result. It ignores the
// prompts of r.
func (c *Client) Chat(ctx context.Context, messages []Message, o TemplateOptions, r *CompletionRequest) (*Stream, error) {
	prompt, err := c.ApplyTemplate(ctx, messages, o)
	if err != nil {
		return nil, err
	}
	with := *r
	with.Prompts = []Prompt{TextPrompt(prompt)}
	return c.Completion(ctx, &with)
}

// TokenizeOptions configure the tokenizer.
type TokenizeOptions struct {
	// AddSpecial prepends the model's begin-of-sequence token.
	AddSpecial bool
	// PlainSpecial treats special tokens written in the text as plain text.
	PlainSpecial bool
}

func (o TokenizeOptions) body(text string, pieces bool) any {
	return struct {
		Content string `json:"content"`
		Add     bool   `json:"add_special"`
		Parse   bool   `json:"parse_special"`
		Pieces  bool   `json:"with_pieces"`
	}{text, o.AddSpecial, !o.PlainSpecial, pieces}
}

// Tokenize returns the token ids of a text.
func (c *Client) Tokenize(ctx context.Context, text string, o TokenizeOptions) ([]int32, error) {
	var out struct {
		Tokens []int32 `json:"tokens"`
	}
	err := c.call(ctx, http.MethodPost, "/tokenize", o.body(text, false), &out)
	return out.Tokens, err
}

// Piece is a token with its bytes, which may end or begin in the middle of a rune.
type Piece struct {
	ID    int32
	Bytes []byte
}

// UnmarshalJSON decodes a piece: a string, or an array of bytes if it is not valid
// UTF-8.
func (p *Piece) UnmarshalJSON(b []byte) error {
	var w struct {
		ID    int32           `json:"id"`
		Piece json.RawMessage `json:"piece"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	p.ID, p.Bytes = w.ID, nil
	if len(w.Piece) > 0 && w.Piece[0] == '[' {
		var nums []uint16
		if err := json.Unmarshal(w.Piece, &nums); err != nil {
			return err
		}
		for _, n := range nums {
			if n > 255 {
				return fmt.Errorf("piece of token %d has a byte of %d", w.ID, n)
			}
			p.Bytes = append(p.Bytes, byte(n))
		}
		return nil
	}
	var s string
	if err := json.Unmarshal(w.Piece, &s); err != nil {
		return err
	}
	p.Bytes = []byte(s)
	return nil
}

// TokenizePieces returns the token ids of a text with their bytes.
func (c *Client) TokenizePieces(ctx context.Context, text string, o TokenizeOptions) ([]Piece, error) {
	var out struct {
		Tokens []Piece `json:"tokens"`
	}
	err := c.call(ctx, http.MethodPost, "/tokenize", o.body(text, true), &out)
	return out.Tokens, err
}

// Detokenize returns the text of token ids.
func (c *Client) Detokenize(ctx context.Context, ids []int32) (string, error) {
	if ids == nil {
		ids = []int32{} // the server rejects null
	}
	var out struct {
		Content string `json:"content"`
	}
	err := c.call(ctx, http.MethodPost, "/detokenize", map[string]any{"tokens": ids}, &out)
	return out.Content, err
}
