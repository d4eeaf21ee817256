//go:build linux

package supervise

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestLogTailKeepsTheLastLines(t *testing.T) {
	tail := newLogTail(3, []string{"s3cret"}, quiet())
	tail.consume(iotest.OneByteReader(strings.NewReader("a\nb\r\n\n\x1b[31mred\x1b[0m s3cret\n\xff bad\nno newline")))
	want := []string{"red [key]", "\uFFFD bad", "no newline"}
	if got := tail.last(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogTailBoundsALine(t *testing.T) {
	tail := newLogTail(4, nil, quiet())
	tail.consume(io.MultiReader(strings.NewReader("before\n"), io.LimitReader(endless{}, 10<<20), strings.NewReader("\nafter\n")))
	got := tail.last()
	if len(got) != 3 || got[0] != "before" || got[2] != "after" {
		t.Fatalf("got %d lines", len(got))
	}
	if len(got[1]) > maxLine+len(" [cut]") || !strings.HasSuffix(got[1], " [cut]") {
		t.Errorf("a line of 10 MiB became %d bytes ending in %q", len(got[1]), got[1][len(got[1])-8:])
	}
}

func TestLogTailTellsStates(t *testing.T) {
	tail := newLogTail(4, nil, quiet())
	n := newNews(tail)
	spoke := make(chan struct{})
	n.speaks(spoke)
	feed := func(format string, args ...any) { tail.consume(strings.NewReader(fmt.Sprintf(format, args...) + "\n")) }
	feed(stateLine + `{"state":"loading","payload":{"stages":["text_model","mmproj_model"],"current":"text_model","value":0.5}}`)
	if got := n.loaded(); got != 0.25 {
		t.Errorf("half of the first of two stages: %v, want 0.25", got)
	}
	feed(stateLine + `{"state":"loading","payload":{"stages":["text_model","mmproj_model"],"current":"mmproj_model","value":7}}`)
	if got := n.loaded(); got != 1 {
		t.Errorf("a value over 1: %v, want 1", got)
	}
	feed(stateLine + `not json`)
	feed(stateLine + `{"state":"ready","payload":{}}`)
	select {
	case <-spoke:
	default:
		t.Error("ready was not noted")
	}
	feed(stateLine + `{"state":"ready","payload":{}}`) // twice must not panic
	if got := tail.last(); len(got) != 0 {
		t.Errorf("state lines are among the log: %q", got)
	}
}

func FuzzLogTail(f *testing.F) {
	f.Add([]byte("a\nb\x1b[0mc\r\n"), 3)
	f.Add([]byte("\x1b["), 1)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		tail := newLogTail(8, []string{"key"}, quiet())
		newNews(tail)
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

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
