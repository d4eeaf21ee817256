package llamaapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// sseReader splits a stream into server-sent events as the HTML standard defines
// text/event-stream, for lines that end in LF or CRLF. It skips comments
// (llama-server pings with ":\n\n") and fields other than data.
type sseReader struct {
	r   io.Reader
	buf []byte
	// buf[ev:end] is unread or belongs to the current event. Lines before pos are
	// parsed, and buf[pos:scan] has no line end.
	ev, pos, scan, end int
	max                int
	started            bool
	multi              []byte // data of events with more than one data line
}

const sseBufSize = 16 << 10

func newSSEReader(r io.Reader, maxEvent int) *sseReader {
	return &sseReader{r: r, buf: make([]byte, max(1, min(sseBufSize, maxEvent))), max: maxEvent}
}

// next returns the data of the next event, valid until the next call. At the
// end of the stream it returns io.EOF, or io.ErrUnexpectedEOF inside an event.
func (s *sseReader) next() ([]byte, error) {
	s.ev = s.pos
	first, size, lines := 0, 0, 0 // the first data line, counted from ev
	for {
		lo, hi, err := s.line()
		if err != nil {
			if errors.Is(err, io.EOF) && (lines > 0 || s.end > s.pos) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if lo == hi {
			switch {
			case lines == 1:
				return s.buf[s.ev+first : s.ev+first+size], nil
			case lines > 1:
				return s.multi, nil
			}
			s.ev = s.pos // nothing to keep
			continue
		}
		skip, ok := dataField(s.buf[lo:hi])
		if !ok {
			if lines == 0 {
				s.ev = s.pos
			}
			continue
		}
		lo += skip
		lines++
		if lines == 1 {
			first, size = lo-s.ev, hi-lo
			continue
		}
		if lines == 2 {
			s.multi = append(s.multi[:0], s.buf[s.ev+first:s.ev+first+size]...)
		}
		s.multi = append(append(s.multi, '\n'), s.buf[lo:hi]...)
	}
}

// dataField reports whether the line is a data field, and where its value begins.
func dataField(line []byte) (int, bool) {
	switch {
	case len(line) >= 6 && string(line[:6]) == "data: ":
		return 6, true
	case len(line) >= 5 && string(line[:5]) == "data:":
		return 5, true
	case string(line) == "data": // a field without a colon has an empty value
		return 4, true
	}
	return 0, false
}

// line returns the position of the next line in buf, without the line end. The
// indices are valid until the next call.
func (s *sseReader) line() (lo, hi int, err error) {
	for {
		if i := bytes.IndexByte(s.buf[s.scan:s.end], '\n'); i >= 0 {
			lo, hi = s.pos, s.scan+i
			s.pos = hi + 1
			s.scan = s.pos
			if hi > lo && s.buf[hi-1] == '\r' {
				hi--
			}
			if !s.started {
				s.started = true
				if bytes.HasPrefix(s.buf[lo:hi], []byte("\xef\xbb\xbf")) {
					lo += 3
				}
			}
			return lo, hi, nil
		}
		s.scan = s.end
		if err := s.fill(); err != nil {
			return 0, 0, err
		}
	}
}

// fill reads more input. If the buffer is full, fill first moves the current event
// to the front or grows the buffer.
func (s *sseReader) fill() error {
	switch {
	case s.end < len(s.buf):
	case s.ev > 0:
		copy(s.buf, s.buf[s.ev:s.end])
		s.pos, s.scan, s.end = s.pos-s.ev, s.scan-s.ev, s.end-s.ev
		s.ev = 0
	case len(s.buf) >= s.max:
		return fmt.Errorf("%w: more than %d bytes", ErrEventTooLarge, s.max)
	default:
		grown := make([]byte, min(2*len(s.buf), s.max))
		copy(grown, s.buf[:s.end])
		s.buf = grown
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			return nil // the next Read returns an error that came with the data
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}
