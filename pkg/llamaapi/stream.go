package llamaapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stream is a running completion. One goroutine reads it; any goroutine may close
// it. When the context of the request ends, the connection is closed, even if
// nobody is reading. The zero value is not usable.
//
//	s, err := client.Completion(ctx, req)
//	if err != nil { ... }
//	defer s.Close()
//	for s.Next() {
//		fmt.Print(s.Token().Text)
//	}
//	if err := s.Err(); err != nil { ... }
type Stream struct {
	ctx     context.Context // the context of the request
	client  *Client
	body    io.ReadCloser
	sse     *sseReader
	ev      event
	stopIDs []int32
	stops   []string

	tok   Token
	queue []Token // sampled but not yet yielded, see updateReady
	ready int     // number of tokens in queue that may be yielded
	probs []Position

	last     int // tokens_predicted of the last event
	final    Final
	ended    bool
	err      error
	start    time.Time
	first    time.Duration
	progress func(Progress)

	done      <-chan struct{} // ctx.Done()
	unwatch   func() bool     // stops closing the body when ctx ends
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// drainTime limits how long the response may take to end after its final event.
const drainTime = 250 * time.Millisecond

func newStream(ctx context.Context, c *Client, start time.Time, body io.ReadCloser, r *CompletionRequest) *Stream {
	return &Stream{
		ctx: ctx, done: ctx.Done(), client: c, body: body, sse: newSSEReader(body, c.maxEvent),
		stopIDs: r.StopIDs, stops: r.Stop, final: Final{Reason: StopNone}, start: start,
		// The reader may be busy with a token, or may never read again.
		unwatch: context.AfterFunc(ctx, func() { closeQuietly(body) }),
	}
}

// isStopped reports whether the stream was closed or its context has ended; events
// may still be buffered.
func (s *Stream) isStopped() bool {
	select {
	case <-s.done:
		return true
	default:
		return s.closed.Load()
	}
}

// Progress is the progress of prompt processing, in tokens.
type Progress struct {
	// Total is the length of the prompt, Cached the part found in the slot's cache,
	// Processed the part processed so far, including Cached.
	Total     int `json:"total"`
	Cached    int `json:"cache"`
	Processed int `json:"processed"`
	// Elapsed is in milliseconds.
	Elapsed int64 `json:"time_ms"`
}

// OnProgress makes Next call f for every progress event. The request must have set
// CompletionRequest.Progress.
func (s *Stream) OnProgress(f func(Progress)) { s.progress = f }

// Next waits for the next token and reports whether there is one. When it returns
// false, Err returns the reason if the completion failed.
func (s *Stream) Next() bool {
	for {
		if s.ready > 0 && (s.ended || !s.isStopped()) {
			s.tok = s.queue[0]
			s.queue = s.queue[:copy(s.queue, s.queue[1:])]
			s.ready--
			return true
		}
		if s.ended {
			return false
		}
		if s.isStopped() {
			s.fail(s.readError(nil))
			continue
		}
		data, err := s.sse.next()
		if err != nil {
			s.fail(s.readError(err))
			continue
		}
		if string(data) == "null" {
			continue // the server sends null when it starts one of several prompts
		}
		if err := s.ev.decode(data); err != nil {
			s.fail(fmt.Errorf("%w: %w", ErrMalformed, err))
			continue
		}
		if s.step() {
			return true
		}
	}
}

// step handles the decoded event. It reports whether s.tok holds a new token.
func (s *Stream) step() bool {
	e := &s.ev
	if len(e.failure) > 0 {
		if err := e.err(); err != nil {
			s.fail(err)
			return false
		}
	}
	if e.stop {
		s.finish()
		return false
	}
	if len(e.tokens) != 1 || len(s.queue) > 0 || e.content == "" ||
		e.predicted != s.last+1 || len(e.probs) > 0 || slices.Contains(s.stopIDs, e.tokens[0]) {
		return s.stepSlow()
	}
	// Fast path of nearly all events: one token with its text.
	if s.last == 0 {
		s.first = time.Since(s.start)
	}
	s.last = e.predicted
	s.tok = Token{ID: e.tokens[0], Text: e.content}
	s.probs = s.probs[:0]
	return true
}

// stepSlow handles all other events: progress, stop ids, text that the server held
// back, and runes that are split over several tokens.
func (s *Stream) stepSlow() bool {
	e := &s.ev
	if len(e.progress) > 0 && s.progress != nil {
		var p Progress
		if err := json.Unmarshal(e.progress, &p); err != nil {
			s.fail(fmt.Errorf("%w: progress: %w", ErrMalformed, err))
			return false
		}
		s.progress(p)
	}
	// A progress event has a token id of 0 without meaning.
	if e.content == "" && (len(e.tokens) == 0 || len(e.progress) > 0) {
		return false
	}
	if len(e.tokens) == 0 {
		s.fail(fmt.Errorf("%w: text without token ids: this llama-server does not support return_tokens; use a newer one", ErrMalformed))
		return false
	}
	if s.last == 0 {
		s.first = time.Since(s.start)
	}
	s.probs = s.probs[:0]
	if len(e.probs) > 0 {
		pos, err := parsePositions(e.probs)
		if err != nil {
			s.fail(fmt.Errorf("%w: probabilities: %w", ErrMalformed, err))
			return false
		}
		s.probs = pos
	}
	ids := e.tokens
	if missing := e.predicted - s.last - len(ids); missing > 0 && s.last+len(ids) <= e.predicted && len(ids) == 1 {
		if found := s.missingIDs(e.content, ids[0], missing); found != nil {
			found = append(found, ids[0])
			ids = found
		} else {
			s.final.LostTokens += missing
		}
	}
	s.last = max(s.last, e.predicted)
	for i, id := range ids {
		if slices.Contains(s.stopIDs, id) {
			s.stopAt(id)
			return false
		}
		t := Token{ID: id}
		if i == len(ids)-1 {
			t.Text = e.content
		}
		s.queue = append(s.queue, t)
	}
	s.updateReady()
	return false
}

// updateReady decides how many queued tokens may be yielded. A token without text
// stays queued: it may end the model's turn or begin a stop string, which only the
// next event shows. With stop strings, a token whose event carries held-back text
// stays queued as well, because that event may be the end-of-sequence token's.
func (s *Stream) updateReady() {
	n := len(s.queue)
	s.ready = n
	if s.queue[n-1].Text == "" || len(s.stops) > 0 && n > 1 && s.queue[n-2].Text == "" {
		s.ready = 0
		for i, t := range s.queue {
			if t.Text != "" && i < n-1 {
				s.ready = i + 1
			}
		}
	}
}

// Token returns the token that Next read.
func (s *Stream) Token() Token { return s.tok }

// Positions returns the candidates of the token, if the request asked for them.
// They are valid until the next call of Next.
func (s *Stream) Positions() []Position { return s.probs }

// Err returns the error that ended the stream: the error of the context if it
// ended, ErrClosed if the stream was closed early, otherwise ErrTruncated, an
// *APIError or another failure. It is nil before the end and after a regular end.
func (s *Stream) Err() error { return s.err }

// Final returns what is known about the completion. The result is complete once
// Next has returned false and Err returns nil.
func (s *Stream) Final() Final {
	f := s.final
	if !s.ended || f.Reason == StopNone {
		f.PredictedTokens, f.PromptTokens = s.last, s.ev.evaluated
	}
	return f
}

// FirstToken returns the time from the request to the first token; 0 before that.
func (s *Stream) FirstToken() time.Duration { return s.first }

// Close closes the connection, which frees the slot of a running completion. It may
// be called at any time, from any goroutine, and more than once.
func (s *Stream) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.unwatch()
		s.closeErr = s.body.Close()
	})
	return s.closeErr
}

// All yields the remaining tokens and closes the stream at the end of the loop.
// Check Err afterwards.
func (s *Stream) All() iter.Seq[Token] {
	return func(yield func(Token) bool) {
		defer closeQuietly(s)
		for s.Next() {
			if !yield(s.tok) {
				return
			}
		}
	}
}
