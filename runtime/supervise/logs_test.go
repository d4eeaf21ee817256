//go:build linux

package supervise

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"
)

func TestLogTailKeepsTheLastLines(t *testing.T) {
	tail := newLogTail(3, []string{"s3cret"}, discardLog())
	tail.consume(iotest.OneByteReader(strings.NewReader("a\nb\r\n\n\x1b[31mred\x1b[0m s3cret\n\xff bad\nno newline")))
	want := []string{"red [key]", "\uFFFD bad", "no newline"}
	if got := tail.last(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogTailTruncatesLine(t *testing.T) {
	tail := newLogTail(4, nil, discardLog())
	tail.consume(io.MultiReader(strings.NewReader("before\n"), io.LimitReader(infiniteReader{}, 10<<20), strings.NewReader("\nafter\n")))
	got := tail.last()
	if len(got) != 3 || got[0] != "before" || got[2] != "after" {
		t.Fatalf("got %d lines", len(got))
	}
	if len(got[1]) > maxLine+len(" [cut]") || !strings.HasSuffix(got[1], " [cut]") {
		t.Errorf("a line of 10 MiB became %d bytes ending in %q", len(got[1]), got[1][len(got[1])-8:])
	}
}

// Fault 30: the log handler blocks. The program's output is read all the same, and
// the number of dropped lines is logged.
func TestFault30_BlockedLogHandler(t *testing.T) {
	const lines = 4 * relayDepth
	h := &slowHandler{Handler: slog.DiscardHandler, let: make(chan struct{})}
	tail := newLogTail(8, nil, slog.New(h))
	read := make(chan struct{})
	go func() {
		defer close(read)
		tail.consume(strings.NewReader(strings.Repeat("a line\n", lines)))
	}()
	select {
	case <-read:
	case <-time.After(time.Minute): // bounds a failure
		t.Error("reading the program's output blocks on the log")
	}
	close(h.let)
	<-read
	tail.close()
	if h.lost < lines-relayDepth-1 || h.lines+h.lost != lines {
		t.Errorf("%d lines were logged and %d reported as dropped, of %d", h.lines, h.lost, lines)
	}
}

// slowHandler blocks on each record until let is closed, and counts the lines.
type slowHandler struct {
	slog.Handler
	let         chan struct{}
	lines, lost int
}

func (h *slowHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *slowHandler) Handle(_ context.Context, r slog.Record) error {
	<-h.let
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "line":
			h.lines++
		case "dropped":
			h.lost += int(a.Value.Uint64())
		}
		return true
	})
	return nil
}

func TestStartupEventsFromStateLines(t *testing.T) {
	tail := newLogTail(4, nil, discardLog())
	n := newStartupEvents(tail)
	spoke := make(chan struct{})
	n.closeWhenReady(spoke)
	feed := func(format string, args ...any) { tail.consume(strings.NewReader(fmt.Sprintf(format, args...) + "\n")) }
	feed(statePrefix + `{"state":"loading","payload":{"stages":["text_model","mmproj_model"],"current":"text_model","value":0.5}}`)
	if got := n.loadProgress(); got != 0.25 {
		t.Errorf("half of the first of two stages: %v, want 0.25", got)
	}
	feed(statePrefix + `{"state":"loading","payload":{"stages":["text_model","mmproj_model"],"current":"mmproj_model","value":7}}`)
	if got := n.loadProgress(); got != 1 {
		t.Errorf("a value over 1: %v, want 1", got)
	}
	feed(statePrefix + `not json`)
	feed(statePrefix + `{"state":"ready","payload":{}}`)
	select {
	case <-spoke:
	default:
		t.Error("the channel for ready was not closed")
	}
	feed(statePrefix + `{"state":"ready","payload":{}}`) // a second one must not panic
	if got := tail.last(); len(got) != 0 {
		t.Errorf("state lines are among the log: %q", got)
	}
}

func FuzzLogTail(f *testing.F) {
	f.Add([]byte("a\nb\x1b[0mc\r\n"), 3)
	f.Add([]byte("\x1b["), 1)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		tail := newLogTail(8, []string{"key"}, discardLog())
		newStartupEvents(tail)
		n = min(max(n, 1), 64)
		for chunk := range slices.Chunk(raw, n) {
			tail.consume(strings.NewReader(string(chunk)))
		}
		for _, line := range tail.last() {
			if !utf8.ValidString(line) || strings.ContainsAny(line, "\n\x1b") || len(line) > 3*maxLine+16 {
				t.Errorf("bad line %q", line)
			}
		}
	})
}

type infiniteReader struct{}

func (infiniteReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
