package llamaapi

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

// A stream of llama-server withholds the event of a token that leaves the text
// in the middle of a rune, and never tells its id: the event of the token that
// completes the rune has the whole text, its own id, and a tokens_predicted
// that jumped (process_token in server-context.cpp). The text of such a rune,
// tokenised, gives the ids, unless the model wrote it in an unusual way; what
// is found is believed only if number, last id and bytes agree.

// runeKey is all that the ids depend on.
type runeKey struct {
	text    string
	last    int32
	missing int
}

// runeCache remembers what was found, since the same emoji come again and again.
type runeCache struct {
	mu  sync.Mutex
	ids map[runeKey][]int32
}

// maxRuneCache bounds the cache; beyond it the tokenizer is asked again.
const maxRuneCache = 4096

// runeIDs finds the ids of the withheld tokens of text, which ended with last.
// It returns nil when they cannot be known.
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
		return nil // the stream goes on without the ids
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

// matchPieces takes the ids of the last pieces but one if the pieces end as the
// stream did. Pieces may begin with a blank that the tokenizer adds, and text
// with a part that was withheld for another reason.
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
