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
	// Text is the valid UTF-8 that became complete with the token, perhaps empty.
	Text string
}

// StopReason says why a completion ended.
type StopReason string

// The reasons of stop_type_to_str in server-task.cpp, and our own StopID.
const (
	StopNone  StopReason = "none"  // it did not end: the stream failed or was closed
	StopEOS   StopReason = "eos"   // the model ended it
	StopWord  StopReason = "word"  // a text of CompletionRequest.Stop came up
	StopLimit StopReason = "limit" // MaxTokens, the context or a time limit was reached
	StopID    StopReason = "id"    // a token of CompletionRequest.StopIDs was sampled
)

// Final is what is known of a completion at its end.
type Final struct {
	// Reason is why it ended.
	Reason StopReason
	// Word is the text that ended it, for StopWord.
	Word string
	// StopToken is the id that ended it, for StopID.
	StopToken int32
	// Slot is the slot that ran it, Model the server's name of the model.
	Slot  int
	Model string
	// PromptTokens counts the prompt, PredictedTokens the sampled tokens with the
	// one that ended it, CachedTokens what the slot now holds.
	PromptTokens, PredictedTokens, CachedTokens int
	// LostTokens is how many ids the server never told: those of a rune split over
	// tokens that could not be found again. Their text is not lost, unless it was
	// withheld for a stop text to the end.
	LostTokens int
	// Truncated means that the context was full.
	Truncated bool
	// Timings are the server's measurements; zero when it sent none.
	Timings Timings
}

// TokenProb is one candidate of a position.
type TokenProb struct {
	ID int32
	// LogProb is the natural logarithm of the probability, -math.MaxFloat32 for an
	// impossible token.
	LogProb float32
}

// Position holds the candidates at one sampled position.
type Position struct {
	// ID is the token that was sampled, LogProb that of it.
	ID      int32
	LogProb float32
	// Top are the most likely candidates, in falling order.
	Top []TokenProb
}

// Completion is a completion that was not streamed.
type Completion struct {
	Final
	// Index is the position of its prompt in the request.
	Index int
	// Text is the whole text.
	Text string
	// Tokens are all sampled ids, an end-of-sequence token among them.
	Tokens []int32
	// Positions has an entry per token when probabilities were asked for.
	Positions []Position
}

// cutAt ends the completion before the first of the stop ids. The text keeps
// what the server gave, since which part of it belongs to which id is not told.
func (c *Completion) cutAt(stop []int32) {
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

// parseCompletions reads the answer to want prompts: one object, or an array of
// them in any order.
func parseCompletions(b []byte, want int) ([]Completion, error) {
	c := cursor{b: b}
	c.ws()
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
		if err := c.done(); err != nil {
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

// parsePositions reads completion_probabilities
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
			p.LogProb, err = c.logOf()
		case "top_logprobs", "top_probs":
			p.Top, err = c.candidates()
		default:
			_, err = c.skip(2)
		}
		return err
	})
	return out, err
}

// candidates reads an array of {id, logprob or prob}.
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
			p.LogProb, err = c.logOf()
		default:
			_, err = c.skip(4)
		}
		return err
	})
	return out, err
}

// logOf reads a probability and returns its logarithm.
func (c *cursor) logOf() (float32, error) {
	p, err := c.float32()
	if err != nil || p <= 0 {
		return -math.MaxFloat32, err
	}
	return float32(math.Log(float64(p))), nil
}

// objects walks over an array of objects. It calls begin for each, and member
// for each of its members, standing on the value.
func (c *cursor) objects(begin func(), member func(key []byte) error) error {
	if c.null() {
		return nil
	}
	if !c.take('[') {
		return c.unexpected("where an array should be")
	}
	for opened := true; ; opened = false {
		more, err := c.next(']', opened)
		if err != nil || !more {
			return err
		}
		if !c.take('{') {
			return c.unexpected("where an object should be")
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
			c.ws()
			if err := member(key); err != nil {
				return err
			}
		}
	}
}

// Logits spreads the candidates of a position over a vocabulary: index is the
// token id, the value its log-probability, -math.MaxFloat32 for tokens that were
// not among them. Log-probabilities are the logits less a constant, so
// differences, order and softmax are those of the logits.
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
