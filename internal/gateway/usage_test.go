package gateway

import (
	"strings"
	"testing"
)

func TestCountsTokensOfEveryKindOfAnswer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		stream bool
		body   int64
		n      int64
		want   int64
	}{
		"chat":               {`{"choices":[{"message":{"content":"\"usage\":{\"total_tokens\":9999}"}}],"usage":{"completion_tokens":2,"prompt_tokens":40,"total_tokens":42}}`, false, 8, 1, 42},
		"three choices":      {`{"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":40,"total_tokens":42}}`, false, 8, 3, 126},
		"completion":         {`{"index":0,"content":"x","timings":{"cache_n":10,"prompt_n":5,"prompt_ms":1.5,"predicted_n":7}}`, false, 8, 1, 22},
		"several":            {`[{"timings":{"prompt_n":5,"predicted_n":7}},{"timings":{"prompt_n":6,"predicted_n":1}}]`, false, 8, 2, 26},
		"embeddings":         {`{"model":"m","usage":{"prompt_tokens":3,"total_tokens":3},"data":[{"embedding":[1,2]}]}`, false, 8, 1, 3},
		"stream, at its end": {"data: {\"choices\":[]}\n\ndata: {\"choices\":[],\"timings\":{\"prompt_n\":5,\"predicted_n\":7}}\n\ndata: [DONE]\n\n", true, 8, 1, 12},
		"Anthropic":          {"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"cache_read_input_tokens\":4,\"input_tokens\":6,\"output_tokens\":0}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":9}}\n\n", true, 8, 1, 19},
		"Responses":          {"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[],\"usage\":{\"input_tokens\":6,\"output_tokens\":9,\"total_tokens\":15}}}\n\n", true, 8, 1, 15},
		"left early":         {"data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: {\"a\":", true, 400, 1, 103},
		"left, many choices": {strings.Repeat("data: {\"usage\":{\"total_tokens\":1}}\n\n", 50), true, 8, 1, 50},
		"hidden":             {`{"content":"` + strings.Repeat("x", 386) + `"}`, false, 200, 1, 150},
		"of the model":       {`{"content":[{"input":{"usage":{"total_tokens":9}}}],"usage":{"input_tokens":2,"output_tokens":1}}`, false, 8, 1, 3},
		"a value":            {`{"a":"usage","b":{"total_tokens":9},"timings":{"prompt_n":1}}`, false, 8, 1, 1},
		"no object":          {`{"usage":5,"timings":[1],"x":"y"}`, false, 12, 1, 11},
		"huge":               {`{"usage":{"x":"` + strings.Repeat("x", 5000) + `","total_tokens":9},"timings":{"prompt_n":1}}`, false, 8, 1, 1},
	} {
		for size := 1; size <= len(tt.answer); size = size*3 + 1 {
			var s usageScanner
			for rest := tt.answer; rest != ""; {
				n := min(size, len(rest))
				s.scan([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := s.tokens(tt.stream, tt.body, tt.n); got != tt.want {
				t.Errorf("%s, in pieces of %d: %d tokens, want %d", name, size, got, tt.want)
			}
		}
	}
}

// FuzzUsage splits an answer anywhere: the count must not depend on it.
func FuzzUsage(f *testing.F) {
	f.Add([]byte(`{"usage":{"total_tokens":9}}`), 3)
	f.Add([]byte("data: {\"a\":\"\\\"\",\"timings\": {\"prompt_n\":1}}\n\n]"), 9)
	f.Fuzz(func(t *testing.T, answer []byte, at int) {
		var whole, parts usageScanner
		whole.scan(answer)
		at = min(max(at, 0), len(answer))
		parts.scan(answer[:at])
		parts.scan(answer[at:])
		for _, stream := range []bool{true, false} {
			if a, b := whole.tokens(stream, 9, 1), parts.tokens(stream, 9, 1); a != b || a < 0 && len(answer) < 1000 && whole.counts.total() >= 0 {
				t.Errorf("%q: %d and %d tokens", answer, a, b)
			}
		}
	})
}
