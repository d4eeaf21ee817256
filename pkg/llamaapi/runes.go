package llamaapi

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

// llama-server sends no event for a token that ends in the middle of a rune, and
// never sends its id. The event of the token that completes the rune has the whole
// text, its own id, and a tokens_predicted that grew by more than one
// (process_token in server-context.cpp). Tokenising the text of the rune returns
// the missing ids, unless the model chose an unusual tokenisation. The result is
// used only if the count, the last id and the bytes match.

// runeKey holds everything that the ids depend on.
type runeKey struct {
	text    string
	last    int32
	missing int
}

// runeCache caches the ids, since the same emoji recur.
type runeCache struct {
	mu  sync.Mutex
	ids map[runeKey][]int32
}

// maxRuneCache limits the number of cached runes.
const maxRuneCache = 4096

// runeIDs returns the ids of the tokens of text that the server did not send; last
// is the id of the final token. It returns nil if they cannot be determined.
func (c *Client) runeIDs(ctx context.Context, text string, last int32, missing int) []int32 {
	key := runeKey{text, last, missing}
	c.runes.mu.Lock()
	found, ok := c.runes.ids[key]
	c.runes.mu.Unlock()
	if ok {
		return slices.Clone(found)
	}
	pieces, err := c.TokenizePieces(ctx, text, TokenizeOptions{})
	if err != nil {
		return nil // the stream continues without the ids
	}
	found = matchPieces(pieces, text, last, missing)
	c.runes.mu.Lock()
	defer c.runes.mu.Unlock()
	if c.runes.ids == nil {
		c.runes.ids = map[runeKey][]int32{}
	}
	if len(c.runes.ids) < maxRuneCache {
		c.runes.ids[key] = found
	}
	return slices.Clone(found)
}

// matchPieces returns the ids of the missing pieces before the last one, if the
// pieces end as the stream did. The pieces may begin with a space that the
// tokenizer adds, and text with a part that was held back for another reason.
func matchPieces(pieces []Piece, text string, last int32, missing int) []int32 {
	n := missing + 1
	if n > len(pieces) || pieces[len(pieces)-1].ID != last {
		return nil
	}
	var joined []byte
	ids := make([]int32, 0, n)
	for _, p := range pieces[len(pieces)-n:] {
		joined = append(joined, p.Bytes...)
		ids = append(ids, p.ID)
	}
	if !bytes.HasSuffix([]byte(text), joined) {
		return nil
	}
	return ids[:missing]
}
