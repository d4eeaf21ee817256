package llamaapi

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// stopAt ends the stream at a stop id, which the server knows nothing of: it is
// hung up on, and that frees the slot.
func (s *Stream) stopAt(id int32) {
	e := &s.ev
	f, err := e.final()
	if err != nil {
		s.fail(err)
		return
	}
	f.Reason, f.StopToken, f.LostTokens = StopID, id, s.final.LostTokens
	s.final = f
	err = s.tellWithheld()
	s.ready = len(s.queue)
	s.end(err)
}

// finish takes the final event in.
func (s *Stream) finish() {
	lost := s.final.LostTokens
	f, err := s.ev.final()
	if err != nil {
		s.fail(err)
		return
	}
	if missing := f.PredictedTokens - s.last; missing > 0 {
		lost += missing // it ended in the middle of a rune
	}
	f.LostTokens = lost
	s.final = f
	switch f.Reason {
	case StopWord:
		// Behind the last text there is nothing but the stop text.
		for n := len(s.queue); n > 0 && s.queue[n-1].Text == ""; n-- {
			s.queue = s.queue[:n-1]
		}
	case StopEOS:
		s.dropEnd()
	case StopLimit:
		err = s.tellWithheld()
	}
	s.ready = len(s.queue)
	s.end(err)
}

// dropEnd takes the end-of-sequence token off the queue, where it stands last,
// and leaves text that came with it to the token before.
func (s *Stream) dropEnd() {
	n := len(s.queue)
	if n == 0 {
		return
	}
	if text := s.queue[n-1].Text; text != "" {
		if n == 1 {
			return // no token to carry it: keep it rather than lose text
		}
		s.queue[n-2].Text += text
	}
	s.queue = s.queue[:n-1]
}

// readError says what a failed read means.
func (s *Stream) readError(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case s.closed.Load():
		return ErrClosed
	case errors.Is(err, ErrEventTooLarge):
		return err
	case errors.Is(err, io.EOF):
		return ErrTruncated
	}
	return fmt.Errorf("%w: %w", ErrTruncated, err)
}

// fail ends the stream with an error. What waits for the next event still comes
// as far as it has text, but for a reader that wants no more.
func (s *Stream) fail(err error) {
	s.ready = 0
	for i, t := range s.queue {
		if t.Text != "" && !s.isCut() {
			s.ready = i + 1
		}
	}
	s.queue = s.queue[:s.ready]
	s.end(err)
}

func (s *Stream) end(err error) {
	s.ended, s.err = true, err
	if err == nil && s.final.Reason != StopID {
		// Only an answer read to its end leaves the connection to the next request.
		timer := time.AfterFunc(drainTime, func() { closeQuietly(s.body) })
		_, _ = s.sse.next() // whatever stands behind the final event says nothing more
		timer.Stop()
	}
	closeQuietly(s)
}
