package llamaapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Token is one sampled token.
type Token struct {
	// ID is the token's number in the vocabulary.
	ID int32
	// Text is the valid UTF-8 that the token completes; it may be empty.
	Text string
}

// StopReason is the reason why a completion ended.
type StopReason string

// The reasons of stop_type_to_str in server-task.cpp, and StopID of this package.
const (
	StopNone  StopReason = "none"  // not ended: the stream failed or was closed
	StopEOS   StopReason = "eos"   // the model ended the completion
	StopWord  StopReason = "word"  // a string of CompletionRequest.Stop was generated
	StopLimit StopReason = "limit" // MaxTokens, the context or a time limit was reached
	StopID    StopReason = "id"    // a token of CompletionRequest.StopIDs was sampled
)

// Final describes a completion that has ended.
type Final struct {
	// Reason is why the completion ended.
	Reason StopReason
	// Word is the stop string that ended it, for StopWord.
	Word string
	// StopToken is the id that ended it, for StopID.
	StopToken int32
	// Slot is the slot that ran the completion, Model the server's name for the model.
	Slot  int
	Model string
	// PromptTokens is the length of the prompt, PredictedTokens the number of sampled
	// tokens including the one that ended the completion, CachedTokens the number of
	// tokens in the slot's cache.
	PromptTokens, PredictedTokens, CachedTokens int
	// LostTokens is the number of token ids that the server did not send and that
	// could not be recovered: ids of a rune that is split over several tokens. Their
	// text is not lost, unless the server held it back for a stop string until the
	// end.
	LostTokens int
	// Truncated means that the context was full.
	Truncated bool
	// Timings are the server's measurements; zero if it sent none.
	Timings Timings
}

// TokenProb is one candidate token at a position.
type TokenProb struct {
	ID int32
	// LogProb is the natural logarithm of the probability; -math.MaxFloat32 for a
	// probability of zero.
	LogProb float32
}

// Position lists the candidates at one sampled position.
type Position struct {
	// ID is the sampled token, LogProb its log-probability.
	ID      int32
	LogProb float32
	// Top lists the most likely candidates, most likely first.
	Top []TokenProb
}

// Completion is a completion that was not streamed.
type Completion struct {
	Final
	// Index is the index of the prompt in the request.
	Index int
	// Text is the whole text.
	Text string
	// Tokens lists all sampled ids, including an end-of-sequence token.
	Tokens []int32
	// Positions has an entry per token if the request asked for probabilities.
	Positions []Position
}

// truncateAt truncates the completion before the first stop id. The text stays
// whole, because the server does not say which part belongs to which id.
func (c *Completion) truncateAt(stop []int32) {
	for i, id := range c.Tokens {
		if slices.Contains(stop, id) {
			c.Tokens, c.Reason, c.StopToken = c.Tokens[:i], StopID, id
			if i < len(c.Positions) {
				c.Positions = c.Positions[:i]
			}
			return
		}
	}
}

func (e *event) final() (Final, error) {
	f := Final{
		Reason: StopReason(e.stopType), Word: e.stopWord, Slot: e.slot, Model: e.model,
		PromptTokens: e.evaluated, PredictedTokens: e.predicted, CachedTokens: e.cached, Truncated: e.truncated,
	}
	if len(e.timings) > 0 {
		if err := json.Unmarshal(e.timings, &f.Timings); err != nil {
			return f, fmt.Errorf("%w: timings: %w", ErrMalformed, err)
		}
	}
	return f, nil
}

// parseCompletions parses the response to want prompts: one object, or an array of
// objects in any order.
func parseCompletions(b []byte, want int) ([]Completion, error) {
	c := cursor{b: b}
	c.skipSpace()
	raws := [][]byte{b}
	if c.i < len(b) && b[c.i] == '[' {
		raws = raws[:0]
		c.i++
		for first := true; ; first = false {
			more, err := c.next(']', first)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
			}
			if !more {
				break
			}
			raw, err := c.skip(1)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
			}
			raws = append(raws, raw)
		}
		if err := c.expectEnd(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if len(raws) != want {
		return nil, fmt.Errorf("%w: %d results for %d prompts", ErrMalformed, len(raws), want)
	}
	out := make([]Completion, len(raws))
	seen := make([]bool, len(raws))
	for _, raw := range raws {
		one, err := parseCompletion(raw)
		if err != nil {
			return nil, err
		}
		if want == 1 {
			one.Index = 0
		}
		if one.Index < 0 || one.Index >= want || seen[one.Index] {
			return nil, fmt.Errorf("%w: result of prompt %d of %d", ErrMalformed, one.Index, want)
		}
		seen[one.Index] = true
		out[one.Index] = one
	}
	return out, nil
}

func parseCompletion(raw []byte) (Completion, error) {
	var e event
	if err := e.decode(raw); err != nil {
		return Completion{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := e.err(); err != nil {
		return Completion{}, err
	}
	f, err := e.final()
	if err != nil {
		return Completion{}, err
	}
	pos, err := parsePositions(e.probs)
	if err != nil {
		return Completion{}, fmt.Errorf("%w: probabilities: %w", ErrMalformed, err)
	}
	return Completion{Final: f, Index: e.index, Text: e.content, Tokens: e.tokens, Positions: pos}, nil
}

// parsePositions parses completion_probabilities
// (completion_token_output::probs_vector_to_json in server-task.cpp).
func parsePositions(b []byte) ([]Position, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b}
	var out []Position
	err := c.objects(func() { out = append(out, Position{}) }, func(key []byte) (err error) {
		p := &out[len(out)-1]
		switch string(key) {
		case "id":
			p.ID, err = c.int32()
		case "logprob":
			p.LogProb, err = c.float32()
		case "prob":
			p.LogProb, err = c.logProb()
		case "top_logprobs", "top_probs":
			p.Top, err = c.candidates()
		default:
			_, err = c.skip(2)
		}
		return err
	})
	return out, err
}

// candidates parses an array of {id, logprob or prob}.
func (c *cursor) candidates() ([]TokenProb, error) {
	var out []TokenProb
	err := c.objects(func() { out = append(out, TokenProb{}) }, func(key []byte) (err error) {
		p := &out[len(out)-1]
		switch string(key) {
		case "id":
			p.ID, err = c.int32()
		case "logprob":
			p.LogProb, err = c.float32()
		case "prob":
			p.LogProb, err = c.logProb()
		default:
			_, err = c.skip(4)
		}
		return err
	})
	return out, err
}

// logProb parses a probability and returns its natural logarithm.
func (c *cursor) logProb() (float32, error) {
	p, err := c.float32()
	if err != nil || p <= 0 {
		return -math.MaxFloat32, err
	}
	return float32(math.Log(float64(p))), nil
}

// objects parses an array of objects. It calls begin for each object, and member
// for each member, with the cursor on the value.
func (c *cursor) objects(begin func(), member func(key []byte) error) error {
	if c.null() {
		return nil
	}
	if !c.consume('[') {
		return c.unexpected("instead of an array")
	}
	for opened := true; ; opened = false {
		more, err := c.next(']', opened)
		if err != nil || !more {
			return err
		}
		if !c.consume('{') {
			return c.unexpected("instead of an object")
		}
		begin()
		for first := true; ; first = false {
			more, err := c.next('}', first)
			if err != nil {
				return err
			}
			if !more {
				break
			}
			key, err := c.key()
			if err != nil {
				return err
			}
			c.skipSpace()
			if err := member(key); err != nil {
				return err
			}
		}
	}
}

// Logits returns a slice of length vocab with the log-probability of each
// candidate at the index of its token id, and -math.MaxFloat32 for all other
// tokens. Log-probabilities are the logits minus a constant, so differences, order
// and softmax are those of the logits.
func (p Position) Logits(vocab int) ([]float32, error) {
	if vocab <= 0 {
		return nil, errors.New("logits: the size of the vocabulary must be positive")
	}
	out := make([]float32, vocab)
	for i := range out {
		out[i] = -math.MaxFloat32
	}
	for _, t := range p.Top {
		if t.ID < 0 || int(t.ID) >= vocab {
			return nil, fmt.Errorf("logits: token %d is outside a vocabulary of %d", t.ID, vocab)
		}
		out[t.ID] = t.LogProb
	}
	return out, nil
}
