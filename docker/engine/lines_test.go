package engine

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

func TestTailKeepsTheLastLinesOfBothStreams(t *testing.T) {
	last := &tail{max: 3}
	stdout, stderr := last.stream(), last.stream()
	for _, w := range []struct {
		to   io.Writer
		text string
	}{{stdout, "one\ntwo\nthr"}, {stderr, "the rea"}, {stdout, "ee\nfour\r\nfi"}, {stderr, "son"}, {stdout, "ve\n"}} {
		if _, err := io.WriteString(w.to, w.text); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"three", "four", "five", "the reason"}
	if got := last.Lines(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrefixLines(t *testing.T) {
	var b bytes.Buffer
	p := PrefixLines(&b, "> ")
	for _, part := range []string{"one\ntw", "o", "\n\nthree"} {
		if _, err := io.WriteString(p, part); err != nil {
			t.Fatal(err)
		}
	}
	if want := "> one\n> two\n> \n> three"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
