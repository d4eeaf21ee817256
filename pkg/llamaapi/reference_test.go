package llamaapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The reference implementation for the hand-written decoder: a simple event reader, and
// encoding/json with exact member names.

// refEvents splits a stream into the data of its events. torn reports that the stream
// ended inside an event.
func refEvents(stream []byte) (events [][]byte, torn bool) {
	r := bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(stream, []byte("\xef\xbb\xbf"))))
	var data []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return events, line != "" || data != nil
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		name, value, _ := strings.Cut(line, ":")
		switch {
		case line == "":
			if data != nil {
				events = append(events, []byte(strings.Join(data, "\n")))
			}
			data = nil
		case name == "data":
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
}

// refDecode decodes an event with encoding/json.
func refDecode(b []byte) (event, error) {
	var e event
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return e, errors.New("not an object")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return e, err
	}
	for name, to := range map[string]any{
		"content": &e.content, "tokens": &e.tokens, "stop": &e.stop, "index": &e.index, "id_slot": &e.slot,
		"tokens_predicted": &e.predicted, "tokens_evaluated": &e.evaluated, "tokens_cached": &e.cached,
		"truncated": &e.truncated, "stop_type": &e.stopType, "stopping_word": &e.stopWord, "model": &e.model,
	} {
		if raw, ok := members[name]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	e.timings, e.probs = members["timings"], members["completion_probabilities"]
	e.progress, e.failure = members["prompt_progress"], members["error"]
	return e, nil
}

// differ returns the difference between two events, "" if there is none.
func differ(got, want event) string {
	describe := func(e event) string {
		ids := append([]int32{}, e.tokens...)
		e.tokens = nil
		t, p, q, f := string(e.timings), string(e.probs), string(e.progress), string(e.failure)
		e.timings, e.probs, e.progress, e.failure = nil, nil, nil, nil
		return fmt.Sprintf("%+v tokens %v timings %s probs %s progress %s error %s", e, ids, t, p, q, f)
	}
	if g, w := describe(got), describe(want); g != w {
		return fmt.Sprintf("got  %s\nwant %s", g, w)
	}
	return ""
}

// choppy is a reader that returns a stream in pieces whose sizes follow a pattern.
type choppy struct {
	b     []byte
	sizes []byte
	n     int
}

func (c *choppy) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	size := len(c.b)
	if len(c.sizes) > 0 {
		size = 1 + int(c.sizes[c.n%len(c.sizes)])
		c.n++
	}
	n := copy(p, c.b[:min(size, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}
