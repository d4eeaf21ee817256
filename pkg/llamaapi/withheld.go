package llamaapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A stream of llama-server withholds text that ends as a stop text begins, and
// whatever stands before it since the last event: the events of such tokens have
// an empty content. The text comes with the token that shows it to be none. When
// the completion ends before that, it never comes, though the answer in one piece
// has it (process_token and send_final_response in server-context.cpp).

// tellWithheld gives the last tokens of the queue the text that was withheld of
// them. The last one with a text gets it all.
func (s *Stream) tellWithheld() error {
	if len(s.stops) == 0 {
		return nil
	}
	var ids []int32
	last := -1
	for i := len(s.queue) - 1; i >= 0 && s.queue[i].Text == ""; i-- {
		hidden, err := s.client.isHidden(s.ctx, s.queue[i].ID)
		if err != nil {
			return fmt.Errorf("the last text, withheld for a stop text: %w", err)
		}
		if !hidden {
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
		return fmt.Errorf("the last text, withheld for a stop text: %w", err)
	}
	// What the server could not write is the beginning of a rune.
	s.queue[last].Text = strings.TrimRight(text, string(utf8.RuneError))
	return nil
}

// isHidden reports whether a token has no text in an answer. Those are the tokens
// that the tokenizer makes only where special ones are asked for.
func (c *Client) isHidden(ctx context.Context, id int32) (bool, error) {
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

// missingIDs finds the ids of the missing tokens of a rune that last completed.
// A rune whose text is withheld ends the beginning of a stop text; nil when that
// may be one of several.
func (s *Stream) missingIDs(text string, last int32, missing int) []int32 {
	if text != "" {
		return s.client.runeIDs(s.ctx, text, last, missing)
	}
	var found []int32
	for _, stop := range s.stops {
		for i := range stop {
			if i == 0 || stop[i-1] < utf8.RuneSelf {
				continue // a rune of one byte is never split
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
