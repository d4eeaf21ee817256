package llamaapi

import (
	"encoding/json"
	"fmt"
	"time"
)

// event is one event of a completion stream as it came, see
// server_task_result_cmpl_partial and _final in server-task.cpp. The slices
// point into the stream's buffer and hold until the next event.
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

	// Values that few events have, as JSON text.
	timings, probs, progress, failure []byte
}

// reset empties the event and keeps the room for tokens.
func (e *event) reset() { *e = event{tokens: e.tokens[:0]} }

// decode reads the event's JSON. The order of the members is free, unknown ones
// are passed over, the last of doubled ones counts.
func (e *event) decode(data []byte) error {
	e.reset()
	if e.usual(data) {
		return nil
	}
	e.reset()
	c := cursor{b: data}
	if !c.take('{') {
		return c.unexpected("where an event's object should be")
	}
	for first := true; ; first = false {
		more, err := c.next('}', first)
		if err != nil {
			return err
		}
		if !more {
			return c.done()
		}
		key, err := c.key()
		if err != nil {
			return err
		}
		c.ws()
		if err := e.member(&c, key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
}

// member reads one value of the event.
func (e *event) member(c *cursor, key []byte) (err error) {
	// A switch on string(key) compiles to a search by length and content, without a copy.
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

// count reads an int.
func (c *cursor) count() (int, error) {
	n, err := c.integer()
	return int(n), err
}

// ids appends an array of token ids; null counts as none.
func (c *cursor) ids(dst []int32) ([]int32, error) {
	if c.null() {
		return dst, nil
	}
	if !c.take('[') {
		return dst, c.unexpected("where an array should be")
	}
	for first := true; ; first = false {
		more, err := c.next(']', first)
		if err != nil || !more {
			return dst, err
		}
		c.ws()
		id, err := c.int32()
		if err != nil {
			return dst, err
		}
		dst = append(dst, id)
	}
}

// err is the error that the event carries, if any.
func (e *event) err() error {
	if len(e.failure) == 0 || string(e.failure) == "null" {
		return nil
	}
	var body errorBody
	if err := json.Unmarshal(e.failure, &body); err != nil {
		return fmt.Errorf("%w: error object: %w", ErrMalformed, err)
	}
	return body.asError(0)
}

// Timings are the server's own measurements of one completion
// (server_slot_stats::to_json in server-common.cpp).
type Timings struct {
	// CachedTokens of the prompt were found in the slot's cache, PromptTokens had
	// to be computed.
	CachedTokens, PromptTokens int
	// Prompt is the time spent on PromptTokens.
	Prompt time.Duration
	// PredictedTokens were sampled in the time Predicted, which begins with the first of them.
	PredictedTokens int
	Predicted       time.Duration
	// PromptPerSecond and PredictedPerSecond are tokens per second.
	PromptPerSecond, PredictedPerSecond float64
	// DraftTokens were proposed by speculative decoding, DraftAccepted of them taken.
	DraftTokens, DraftAccepted int
}

// UnmarshalJSON reads the server's object.
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
