package llamaapi

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// stopAt ends the stream at a stop id. The server does not know the stop ids;
// closing the connection frees the slot.
func (s *Stream) stopAt(id int32) {
	e := &s.ev
	f, err := e.final()
	if err != nil {
		s.fail(err)
		return
	}
	f.Reason, f.StopToken, f.LostTokens = StopID, id, s.final.LostTokens
	s.final = f
	err = s.addHeldBackText()
	s.ready = len(s.queue)
	s.end(err)
}

// finish handles the final event.
func (s *Stream) finish() {
	lost := s.final.LostTokens
	f, err := s.ev.final()
	if err != nil {
		s.fail(err)
		return
	}
	if missing := f.PredictedTokens - s.last; missing > 0 {
		lost += missing // the completion ended in the middle of a rune
	}
	f.LostTokens = lost
	s.final = f
	switch f.Reason {
	case StopWord:
		// Tokens after the last text belong to the stop string.
		for n := len(s.queue); n > 0 && s.queue[n-1].Text == ""; n-- {
			s.queue = s.queue[:n-1]
		}
	case StopEOS:
		s.dropEOS()
	case StopLimit:
		err = s.addHeldBackText()
	}
	s.ready = len(s.queue)
	s.end(err)
}

// dropEOS removes the end-of-sequence token from the end of the queue. Text that
// came with it moves to the token before.
func (s *Stream) dropEOS() {
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

// readError returns the error for a failed read.
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

// fail ends the stream with an error. Queued tokens up to the last one with text
// are still yielded, unless the stream was stopped by its reader.
func (s *Stream) fail(err error) {
	s.ready = 0
	for i, t := range s.queue {
		if t.Text != "" && !s.isStopped() {
			s.ready = i + 1
		}
	}
	s.queue = s.queue[:s.ready]
	s.end(err)
}

func (s *Stream) end(err error) {
	s.ended, s.err = true, err
	if err == nil && s.final.Reason != StopID {
		// The connection can be reused only if the response is read to its end.
		timer := time.AfterFunc(drainTime, func() { closeQuietly(s.body) })
		_, _ = s.sse.next() // nothing after the final event matters
		timer.Stop()
	}
	closeQuietly(s)
}
