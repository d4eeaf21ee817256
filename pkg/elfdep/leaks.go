package elfdep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Leak is a path of the build machine in a file.
type Leak struct {
	Offset int64  // of the path in the file
	Text   string // the path and the printable text after it, cut at maxLeak bytes
}

const (
	maxLeak     = 200
	leakWindow  = 1 << 20
	leakOverlap = 4096
)

// ScanStrings finds paths at or under one of dirs (absolute, such as "/build")
// in r: the directory's name must be followed by "/" or the end of the text, and
// must not be the tail of a longer path, so that "/usr/src/x" is no leak of
// "/src". Leaks come in the order of the file; limit stops the scan after that
// many, 0 means all.
func ScanStrings(r io.Reader, dirs []string, limit int) ([]Leak, error) {
	for _, d := range dirs {
		if !path.IsAbs(d) || path.Clean(d) != d || d == "/" || len(d) > leakOverlap/2 {
			return nil, fmt.Errorf("scan for build paths: %q is not a clean absolute path", d)
		}
	}
	var found []Leak
	buf := make([]byte, leakWindow)
	have, base, done := 0, int64(0), 0 // done: paths that begin before buf[done] are dealt with
	for {
		n, err := io.ReadFull(r, buf[have:])
		have += n
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return nil, err
		}
		until := have
		if !last {
			until -= leakOverlap / 2 // a path that begins later may be cut
		}
		for _, l := range leaksIn(buf[:have], dirs, done, until) {
			l.Offset += base
			if found = append(found, l); limit > 0 && len(found) == limit {
				return found, nil
			}
		}
		if last {
			return found, nil
		}
		keep := leakOverlap
		copy(buf, buf[have-keep:have])
		base += int64(have - keep)
		done = keep - leakOverlap/2
		have = keep
	}
}

// leaksIn finds the paths that begin in b[from:until].
func leaksIn(b []byte, dirs []string, from, until int) []Leak {
	var out []Leak
	for _, d := range dirs {
		for at := from; ; {
			i := bytes.Index(b[at:], []byte(d))
			if i < 0 || at+i >= until {
				break
			}
			i += at
			at = i + len(d)
			after := b[at:min(len(b), i+maxLeak)]
			if len(after) > 0 && after[0] != '/' && pathByte(after[0]) || i > 0 && pathByte(b[i-1]) {
				continue
			}
			if n := bytes.IndexFunc(after, func(r rune) bool { return r < 0x20 || r >= 0x7f }); n >= 0 {
				after = after[:n]
			}
			out = append(out, Leak{Offset: int64(i), Text: d + string(after)})
		}
	}
	slices.SortFunc(out, func(a, b Leak) int { return int(a.Offset - b.Offset) })
	return out
}

// pathByte reports whether a byte beside a path makes it a part of another.
func pathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-+~", c) >= 0
}
