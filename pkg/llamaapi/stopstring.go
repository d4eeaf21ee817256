package llamaapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// llama-server holds back text that may be the beginning of a stop string: the
// events of such tokens have an empty content. The text arrives with the token
// that shows that it is no stop string. If the completion ends before that, a
// stream never receives the text, although a response that is not streamed has it
// (process_token and send_final_response in server-context.cpp).

// addHeldBackText adds the text that the server held back to the last queued token
// that can carry text.
func (s *Stream) addHeldBackText() error {
	if len(s.stops) == 0 {
		return nil
	}
	var ids []int32
	last := -1
	for i := len(s.queue) - 1; i >= 0 && s.queue[i].Text == ""; i-- {
		control, err := s.client.isControl(s.ctx, s.queue[i].ID)
		if err != nil {
			return fmt.Errorf("recover the text held back for a stop string: %w", err)
		}
		if !control {
			ids = append(ids, s.queue[i].ID)
			last = max(last, i)
		}
	}
	if last < 0 {
		return nil
	}
	slices.Reverse(ids)
	text, err := s.client.Detokenize(s.ctx, ids)
	if err != nil {
		return fmt.Errorf("recover the text held back for a stop string: %w", err)
	}
	// The replacement rune is the incomplete rune at the end.
	s.queue[last].Text = strings.TrimRight(text, string(utf8.RuneError))
	return nil
}

// isControl reports whether a token has no text in a response. These are the tokens
// that the tokenizer produces only when it parses special tokens.
func (c *Client) isControl(ctx context.Context, id int32) (bool, error) {
	text, err := c.Detokenize(ctx, []int32{id})
	if err != nil {
		return false, err
	}
	special, err := c.Tokenize(ctx, text, TokenizeOptions{})
	if err != nil {
		return false, err
	}
	plain, err := c.Tokenize(ctx, text, TokenizeOptions{PlainSpecial: true})
	return !slices.Equal(special, plain), err
}

// missingIDs returns the ids of the missing tokens of the rune that the token last
// completed. A rune whose text is held back ends a prefix of a stop string; the
// result is nil if several prefixes are possible.
func (s *Stream) missingIDs(text string, last int32, missing int) []int32 {
	if text != "" {
		return s.client.runeIDs(s.ctx, text, last, missing)
	}
	var found []int32
	for _, stop := range s.stops {
		for i := range stop {
			if i == 0 || stop[i-1] < utf8.RuneSelf {
				continue // a one-byte rune is never split
			}
			ids := s.client.runeIDs(s.ctx, stop[:i], last, missing)
			if ids != nil && found != nil && !slices.Equal(ids, found) {
				return nil
			}
			if ids != nil {
				found = ids
			}
		}
	}
	return found
}
