package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const (
	// usageDepth is how deep the members are nested that say how many tokens an
	// answer has: at the top, in the message or response of an event, or in the
	// elements of an array. What a model writes is deeper, or in a string.
	usageDepth = 2
	// maxUsageObject limits such a member, in bytes.
	maxUsageObject = 4096
	// bytesPerToken estimates the tokens of an answer that does not say.
	bytesPerToken = 4
)

// usageScanner finds the number of tokens in an answer of llama-server, a JSON
// value or a stream of events, without holding the answer: in "usage" as OpenAI,
// Anthropic and the Responses API have it, or in llama-server's own "timings".
type usageScanner struct {
	depth             int
	inString, escaped bool
	afterColon        bool
	name              []byte // the last string, no longer than the names that are sought
	object            []byte // the member that is being read, nil: none
	objectDepth       int

	found  bool
	counts usageCounts // the largest of each
	values int64       // JSON values at the top, events of a stream
	bytes  int64
}

// usageCounts are the members of "usage" and "timings".
type usageCounts struct {
	Total      int64 `json:"total_tokens"`
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Input      int64 `json:"input_tokens"`
	Output     int64 `json:"output_tokens"`
	CacheRead  int64 `json:"cache_read_input_tokens"`
	CacheN     int64 `json:"cache_n"`
	PromptN    int64 `json:"prompt_n"`
	PredictedN int64 `json:"predicted_n"`
}

// total returns the tokens of prompt and answer.
func (c *usageCounts) total() int64 {
	return max(c.Total, c.Prompt+c.Completion, c.Input+c.CacheRead+c.Output, c.CacheN+c.PromptN+c.PredictedN)
}

// scan reads the next piece of the answer.
func (s *usageScanner) scan(p []byte) {
	s.bytes += int64(len(p))
	for _, c := range p {
		if s.object != nil {
			s.object = append(s.object, c)
		}
		switch {
		case s.escaped:
			s.escaped = false
		case s.inString && c == '\\':
			s.escaped = true
		case s.inString:
			if s.inString = c != '"'; s.inString && len(s.name) < len("timings")+1 {
				s.name = append(s.name, c)
			}
		default:
			s.structure(c)
		}
		if len(s.object) > maxUsageObject {
			s.object = nil
		}
	}
}

// structure reads a byte outside of strings.
func (s *usageScanner) structure(c byte) {
	colon := s.afterColon
	s.afterColon = c == ':' || colon && (c == ' ' || c == '\n')
	switch c {
	case '"':
		if s.depth > 0 { // else the text of an event stream
			s.inString, s.name = true, s.name[:0]
		}
	case '{', '[':
		if s.depth == 0 {
			s.values++
		}
		if name := string(s.name); c == '{' && colon && s.object == nil && s.depth <= usageDepth && (name == "usage" || name == "timings") {
			s.object, s.objectDepth = []byte{'{'}, s.depth
		}
		s.depth++
	case '}', ']':
		s.depth = max(0, s.depth-1)
		if s.object != nil && s.depth == s.objectDepth {
			s.count()
		}
	}
}

// count evaluates the member that is complete.
func (s *usageScanner) count() {
	var c usageCounts
	if json.Unmarshal(s.object, &c) == nil {
		s.found = s.found || c.total() > 0
		m := &s.counts
		m.Total, m.Prompt, m.Completion = max(m.Total, c.Total), max(m.Prompt, c.Prompt), max(m.Completion, c.Completion)
		m.Input, m.Output, m.CacheRead = max(m.Input, c.Input), max(m.Output, c.Output), max(m.CacheRead, c.CacheRead)
		m.CacheN, m.PromptN, m.PredictedN = max(m.CacheN, c.CacheN), max(m.PromptN, c.PromptN), max(m.PredictedN, c.PredictedN)
	}
	s.object = nil
}

// tokens returns the tokens of a request with a body of that many bytes, and with
// that many answers in one. An answer that does not say how many there are, because
// its client left or asked for other fields, is estimated: an event has a token.
func (s *usageScanner) tokens(stream bool, body, answers int64) int64 {
	switch {
	case s.found && stream:
		return max(s.counts.total()*answers, s.values)
	case s.found:
		return s.counts.total() * answers
	case stream:
		return body/bytesPerToken + s.values
	}
	return (body + s.bytes) / bytesPerToken
}

// countTokens counts the tokens of a request for a key that has a budget.
func (g *Gateway) countTokens(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		rt, _ := g.findRoute(r.URL.Path)
		if x.key == nil || x.key.TokensPerDay == 0 || rt.light {
			next.ServeHTTP(w, r)
			return
		}
		t := &tokenWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if t.status == http.StatusOK {
				stream := strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream")
				g.keys.usage.add(x.key.Name, t.scanner.tokens(stream, x.body, max(x.answers, 1)), time.Now())
			}
		}()
		next.ServeHTTP(t, r)
	})
}

// tokenWriter scans an answer.
type tokenWriter struct {
	http.ResponseWriter

	status  int
	scanner usageScanner
}

// Unwrap lets http.ResponseController flush.
func (t *tokenWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (t *tokenWriter) WriteHeader(status int) {
	t.status = status
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tokenWriter) Write(p []byte) (int, error) {
	t.scanner.scan(p)
	return t.ResponseWriter.Write(p)
}
