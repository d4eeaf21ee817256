package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

const (
	// usageVersion is the version of the file of used tokens.
	usageVersion = 1
	// maxUsageFile limits that file, in bytes.
	maxUsageFile = 1 << 20
)

// tokenUsage counts the tokens that each key has used on the current day of UTC.
// A goroutine writes the counts to a file after each change, so that they survive
// a restart; a program that is killed loses those of its last moment.
type tokenUsage struct {
	path string // "": no file
	log  *slog.Logger

	mu     sync.Mutex
	day    string
	tokens map[string]int64
	closed bool

	changed chan struct{} // closed by close
	written sync.WaitGroup
}

// usageFile is the content of the file.
type usageFile struct {
	Version int              `json:"version"`
	Day     string           `json:"day"`
	Tokens  map[string]int64 `json:"tokens"`
}

// openUsage reads the file. One that cannot be read is reported, and the counts
// begin at zero.
func openUsage(path string, log *slog.Logger) *tokenUsage {
	u := &tokenUsage{path: path, log: log, tokens: map[string]int64{}, changed: make(chan struct{}, 1)}
	if path == "" {
		return u
	}
	f, err := readUsage(path)
	switch {
	case err == nil:
		u.day, u.tokens = f.Day, f.Tokens
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the file of used tokens cannot be read; tokens are counted from zero", "path", path, "cause", err.Error())
	}
	u.written.Go(func() {
		for range u.changed {
			if err := u.write(); err != nil {
				log.Warn("the file of used tokens cannot be written; a restart forgets them", "path", path, "cause", err.Error())
			}
		}
	})
	return u
}

func readUsage(path string) (usageFile, error) {
	var f usageFile
	raw, err := regfile.Read(path, maxUsageFile)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, err
	}
	if f.Version != usageVersion {
		return f, fmt.Errorf("its version is %d, not %d", f.Version, usageVersion)
	}
	for name, n := range f.Tokens {
		if n < 0 {
			return f, fmt.Errorf("%d tokens for %q", n, name)
		}
	}
	if f.Tokens == nil {
		f.Tokens = map[string]int64{}
	}
	return f, nil
}

// today forgets the counts of another day. The caller holds mu.
func (u *tokenUsage) today(now time.Time) {
	if day := now.UTC().Format(time.DateOnly); day != u.day {
		u.day, u.tokens = day, map[string]int64{}
	}
}

// used returns the tokens of a key on the day of now.
func (u *tokenUsage) used(key string, now time.Time) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.today(now)
	return u.tokens[key]
}

// add counts tokens of a key.
func (u *tokenUsage) add(key string, tokens int64, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.today(now)
	u.tokens[key] += tokens
	if u.path == "" || u.closed {
		return
	}
	select {
	case u.changed <- struct{}{}:
	default: // the write that is due includes this change
	}
}

// write replaces the file atomically.
func (u *tokenUsage) write() (err error) {
	u.mu.Lock()
	f := usageFile{Version: usageVersion, Day: u.day, Tokens: maps.Clone(u.tokens)}
	u.mu.Unlock()
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(u.path), filepath.Base(u.path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(append(raw, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), u.path)
}

// close waits until all counts are written. Later ones are not.
func (u *tokenUsage) close() {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		close(u.changed)
	}
	u.mu.Unlock()
	u.written.Wait()
}

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

	PromptDetails cachedTokens `json:"prompt_tokens_details"`
	InputDetails  cachedTokens `json:"input_tokens_details"`

	PromptMillis       float64 `json:"prompt_ms"`
	PredictedPerSecond float64 `json:"predicted_per_second"`
}

// cachedTokens are the details of tokens in OpenAI's form.
type cachedTokens struct {
	Cached int64 `json:"cached_tokens"`
}

// total returns the tokens of prompt and answer.
func (c *usageCounts) total() int64 {
	return max(c.Total, c.Prompt+c.Completion, c.Input+c.CacheRead+c.Output, c.CacheN+c.PromptN+c.PredictedN)
}

// prompt returns the tokens of the prompt, cached those of them that were computed
// for an earlier request, and generated those of the answer.
func (c *usageCounts) prompt() int64 { return max(c.Prompt, c.Input+c.CacheRead, c.CacheN+c.PromptN) }

func (c *usageCounts) cached() int64 { return max(c.CacheN, c.CacheRead, c.PromptDetails.Cached) }

func (c *usageCounts) generated() int64 { return max(c.Completion, c.Output, c.PredictedN) }

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
		m.PromptDetails.Cached = max(m.PromptDetails.Cached, c.PromptDetails.Cached, c.InputDetails.Cached)
		m.PromptMillis, m.PredictedPerSecond = max(m.PromptMillis, c.PromptMillis), max(m.PredictedPerSecond, c.PredictedPerSecond)
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
