package engine

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
)

// PrefixLines returns a writer that puts a prefix before each line.
func PrefixLines(w io.Writer, prefix string) io.Writer {
	return &prefixer{w: w, prefix: prefix}
}

type prefixer struct {
	w      io.Writer
	prefix string
	middle bool // of a line
}

func (p *prefixer) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if !p.middle {
			line = append([]byte(p.prefix), line...)
		}
		p.middle = !bytes.HasSuffix(line, []byte("\n"))
		if _, err := p.w.Write(line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// keptLines is how many of a job's last lines an ExitError has.
const keptLines = 30

// tail keeps the last lines of several streams.
type tail struct {
	mu    sync.Mutex
	max   int
	lines []string
	parts []*part
}

// part is one stream of a tail. Its unfinished line is separate from those of other streams.
type part struct {
	tail *tail
	text []byte
}

func (t *tail) stream() io.Writer {
	p := &part{tail: t}
	t.parts = append(t.parts, p)
	return p
}

func (p *part) Write(b []byte) (int, error) {
	t := p.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	p.text = append(p.text, b...)
	for {
		line, rest, ok := bytes.Cut(p.text, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		t.lines = append(t.lines, strings.TrimRight(string(line), "\r"))
		if len(t.lines) > t.max {
			t.lines = t.lines[1:]
		}
		p.text = append(p.text[:0], rest...)
	}
}

// Lines returns the last lines, unfinished ones at the end.
func (t *tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.lines)
	for _, p := range t.parts {
		if len(p.text) > 0 {
			lines = append(lines, string(p.text))
		}
	}
	return lines
}
