package activity

import (
	"strings"
	"unicode/utf8"
)

// MaxCapture is how much of a body is kept, in bytes.
const MaxCapture = 64 << 10

// Capture has the bodies of a request and of its answer, or their beginnings.
type Capture struct {
	// ID is that of the request's record.
	ID string `json:"id"`
	// Request and Response are the bodies; what is not UTF-8 is replaced.
	Request  string `json:"request"`
	Response string `json:"response"`
	// Truncated reports that a body was longer than MaxCapture.
	Truncated bool `json:"truncated"`
}

// Keep adds bodies. It keeps Options.Capture of them, and drops the oldest.
func (l *Log) Keep(id string, request, response []byte, truncated bool) {
	if l.capture == 0 {
		return
	}
	c := Capture{ID: id, Truncated: truncated || len(request) > MaxCapture || len(response) > MaxCapture}
	c.Request, c.Response = captureText(request), captureText(response)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.captured) >= l.capture {
		l.captured = append(l.captured[:0], l.captured[len(l.captured)-l.capture+1:]...)
	}
	l.captured = append(l.captured, c)
}

// Captured returns the bodies that are kept, the newest first.
func (l *Log) Captured() []Capture {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Capture, 0, len(l.captured))
	for i := range l.captured {
		list = append(list, l.captured[len(l.captured)-1-i])
	}
	return list
}

// captureText returns at most MaxCapture bytes, without a part of a character at
// their end.
func captureText(b []byte) string {
	if len(b) > MaxCapture {
		b = b[:MaxCapture]
		for range utf8.UTFMax - 1 {
			if r, size := utf8.DecodeLastRune(b); r == utf8.RuneError && size == 1 {
				b = b[:len(b)-1]
			}
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
