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

// Stream is one running completion. One goroutine reads it; Close may be called
// by any. When the context of its request ends it is hung up on, whether it is
// being read or not. The zero value is not usable.
//
//	s, err := client.Completion(ctx, req)
//	if err != nil { ... }
//	defer s.Close()
//	for s.Next() {
//		fmt.Print(s.Token().Text)
//	}
//	if err := s.Err(); err != nil { ... }
type Stream struct {
	ctx     context.Context // the context of the request whose answer this is
	client  *Client
	body    io.ReadCloser
	sse     *sseReader
	ev      event
	stopIDs []int32
	stops   []string

	tok   Token
	queue []Token // sampled but not yet yielded, see release
	ready int     // how many of queue may be yielded
	probs []Position

	last     int // tokens_predicted of the last event
	final    Final
	ended    bool
	err      error
	start    time.Time
	first    time.Duration
	progress func(Progress)

	done      <-chan struct{} // of ctx
	forget    func() bool     // ends the watch on ctx
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// drainTime is how long the end of the answer may take behind its final event.
const drainTime = 250 * time.Millisecond

func newStream(ctx context.Context, c *Client, start time.Time, body io.ReadCloser, r *CompletionRequest) *Stream {
	return &Stream{
		ctx: ctx, done: ctx.Done(), client: c, body: body, sse: newSSEReader(body, c.maxEvent),
		stopIDs: r.StopIDs, stops: r.Stop, final: Final{Reason: StopNone}, start: start,
		// Its reader may be busy with a token, or come no more.
		forget: context.AfterFunc(ctx, func() { closeQuietly(body) }),
	}
}

// isCut reports whether the stream must not go on, though events may be here already.
func (s *Stream) isCut() bool {
	select {
	case <-s.done:
		return true
	default:
		return s.closed.Load()
	}
}

// Progress is how far the prompt has been processed, in tokens.
type Progress struct {
	// Total of the prompt, Cached of it found in the slot, Processed so far with those.
	Total     int `json:"total"`
	Cached    int `json:"cache"`
	Processed int `json:"processed"`
	// Elapsed is in milliseconds.
	Elapsed int64 `json:"time_ms"`
}

// OnProgress calls f from Next for every progress event; the request must have
// asked for them.
func (s *Stream) OnProgress(f func(Progress)) { s.progress = f }

// Next waits for the next token and reports whether there is one. After it
// returned false, Err says whether the completion ended well.
func (s *Stream) Next() bool {
	for {
		if s.ready > 0 && (s.ended || !s.isCut()) {
			s.tok = s.queue[0]
			s.queue = s.queue[:copy(s.queue, s.queue[1:])]
			s.ready--
			return true
		}
		if s.ended {
			return false
		}
		if s.isCut() {
			s.fail(s.readError(nil))
			continue
		}
		data, err := s.sse.next()
		if err != nil {
			s.fail(s.readError(err))
			continue
		}
		if string(data) == "null" {
			continue // the server's sign that a prompt of several is begun
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

// step takes the decoded event in. It is true when a token is in s.tok.
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
	// Nearly all events come this way: one token, its text, nothing withheld.
	if s.last == 0 {
		s.first = time.Since(s.start)
	}
	s.last = e.predicted
	s.tok = Token{ID: e.tokens[0], Text: e.content}
	s.probs = s.probs[:0]
	return true
}

// stepSlow handles what step does not: progress, stop ids, withheld text and
// runes that were split over tokens.
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
	// A progress event has a token id of 0 that stands for nothing.
	if e.content == "" && (len(e.tokens) == 0 || len(e.progress) > 0) {
		return false
	}
	if len(e.tokens) == 0 {
		s.fail(fmt.Errorf("%w: text without token ids; this llama-server does not know return_tokens, take a newer one", ErrMalformed))
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
	s.release()
	return false
}

// release lets go of what is queued. A token without text stays, for it may be
// the one that ends the model's turn, or the beginning of a stop text: only the
// next event tells. With stop texts a token that brings withheld text stays as
// well, since that may come with the end-of-sequence token.
func (s *Stream) release() {
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

// Token is the token that Next found.
func (s *Stream) Token() Token { return s.tok }

// Positions are the candidates of the token, if they were asked for. They hold
// until the next call of Next.
func (s *Stream) Positions() []Position { return s.probs }

// Err is why the stream failed: nil after a well-formed end, ctx's error when
// ctx ended, ErrClosed when it was closed before its end, else ErrTruncated, an
// *APIError or another failure. Before the end it is nil.
func (s *Stream) Err() error { return s.err }

// Final is what is known of the completion; it is whole once Next returned
// false without an error.
func (s *Stream) Final() Final {
	f := s.final
	if !s.ended || f.Reason == StopNone {
		f.PredictedTokens, f.PromptTokens = s.last, s.ev.evaluated
	}
	return f
}

// FirstToken is the time from sending the request to its first token, 0 before that.
func (s *Stream) FirstToken() time.Duration { return s.first }

// Close hangs up, which frees the slot if the completion still runs. It may be
// called at any time, by any goroutine, and more than once.
func (s *Stream) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.forget()
		s.closeErr = s.body.Close()
	})
	return s.closeErr
}

// All yields the remaining tokens and closes the stream when the loop ends or
// is left. Err says how it went.
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
