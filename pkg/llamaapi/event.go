package llamaapi

import (
	"encoding/json"
	"fmt"
	"time"
)

// event is one decoded event of a completion stream; see
// server_task_result_cmpl_partial and _final in server-task.cpp. The slices point
// into the stream's buffer and are valid until the next event.
type event struct {
	index     int
	slot      int
	predicted int
	evaluated int
	cached    int
	content   string
	tokens    []int32
	stop      bool
	truncated bool
	stopType  string
	stopWord  string
	model     string

	// Rare members, as raw JSON.
	timings, probs, progress, failure []byte
}

// reset clears the event and keeps the capacity of tokens.
func (e *event) reset() { *e = event{tokens: e.tokens[:0]} }

// decode parses the event's JSON. Members may come in any order, unknown members
// are skipped, and the last of duplicate members counts.
func (e *event) decode(data []byte) error {
	e.reset()
	if e.decodeFast(data) {
		return nil
	}
	e.reset()
	c := cursor{b: data}
	if !c.consume('{') {
		return c.unexpected("instead of an object")
	}
	for first := true; ; first = false {
		more, err := c.next('}', first)
		if err != nil {
			return err
		}
		if !more {
			return c.expectEnd()
		}
		key, err := c.key()
		if err != nil {
			return err
		}
		c.skipSpace()
		if err := e.member(&c, key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
}

// member parses one member of the event.
func (e *event) member(c *cursor, key []byte) (err error) {
	// A switch on string(key) does not copy the key.
	switch string(key) {
	case "content":
		e.content, err = c.text()
	case "tokens":
		e.tokens, err = c.ids(e.tokens[:0])
	case "stop":
		e.stop, err = c.boolean()
	case "index":
		e.index, err = c.count()
	case "id_slot":
		e.slot, err = c.count()
	case "tokens_predicted":
		e.predicted, err = c.count()
	case "tokens_evaluated":
		e.evaluated, err = c.count()
	case "tokens_cached":
		e.cached, err = c.count()
	case "truncated":
		e.truncated, err = c.boolean()
	case "stop_type":
		e.stopType, err = c.text()
	case "stopping_word":
		e.stopWord, err = c.text()
	case "model":
		e.model, err = c.text()
	case "timings":
		e.timings, err = c.skip(1)
	case "completion_probabilities":
		e.probs, err = c.skip(1)
	case "prompt_progress":
		e.progress, err = c.skip(1)
	case "error":
		e.failure, err = c.skip(1)
	default:
		_, err = c.skip(1)
	}
	return err
}

// count parses an int.
func (c *cursor) count() (int, error) {
	n, err := c.integer()
	return int(n), err
}

// ids appends an array of token ids; null counts as an empty array.
func (c *cursor) ids(dst []int32) ([]int32, error) {
	if c.null() {
		return dst, nil
	}
	if !c.consume('[') {
		return dst, c.unexpected("instead of an array")
	}
	for first := true; ; first = false {
		more, err := c.next(']', first)
		if err != nil || !more {
			return dst, err
		}
		c.skipSpace()
		id, err := c.int32()
		if err != nil {
			return dst, err
		}
		dst = append(dst, id)
	}
}

// err returns the error that the event carries, if any.
func (e *event) err() error {
	if len(e.failure) == 0 || string(e.failure) == "null" {
		return nil
	}
	var body errorBody
	if err := json.Unmarshal(e.failure, &body); err != nil {
		return fmt.Errorf("%w: error object: %w", ErrMalformed, err)
	}
	return body.apiError(0)
}

// Timings are the server's measurements of one completion
// (server_slot_stats::to_json in server-common.cpp).
type Timings struct {
	// CachedTokens is the number of prompt tokens found in the slot's cache,
	// PromptTokens the number that had to be computed.
	CachedTokens, PromptTokens int
	// Prompt is the time spent computing PromptTokens.
	Prompt time.Duration
	// PredictedTokens is the number of sampled tokens, Predicted the time from the
	// first to the last of them.
	PredictedTokens int
	Predicted       time.Duration
	// PromptPerSecond and PredictedPerSecond are in tokens per second.
	PromptPerSecond, PredictedPerSecond float64
	// DraftTokens is the number of tokens that speculative decoding proposed,
	// DraftAccepted the number of them that were accepted.
	DraftTokens, DraftAccepted int
}

// UnmarshalJSON decodes the server's object.
func (t *Timings) UnmarshalJSON(b []byte) error {
	var w struct {
		CacheN    int     `json:"cache_n"`
		PromptN   int     `json:"prompt_n"`
		PromptMS  float64 `json:"prompt_ms"`
		PromptTPS float64 `json:"prompt_per_second"`
		GenN      int     `json:"predicted_n"`
		GenMS     float64 `json:"predicted_ms"`
		GenTPS    float64 `json:"predicted_per_second"`
		DraftN    int     `json:"draft_n"`
		DraftOK   int     `json:"draft_n_accepted"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*t = Timings{
		CachedTokens: w.CacheN, PromptTokens: w.PromptN, Prompt: milliseconds(w.PromptMS),
		PredictedTokens: w.GenN, Predicted: milliseconds(w.GenMS),
		PromptPerSecond: w.PromptTPS, PredictedPerSecond: w.GenTPS,
		DraftTokens: w.DraftN, DraftAccepted: w.DraftOK,
	}
	return nil
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond))
}
