package elfdep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Leak is a path of the build machine that stands in a file.
type Leak struct {
	Offset int64  // of Text in the file
	Text   string // the printable text around the path, cut at maxLeak bytes
}

const maxLeak = 256

// ScanStrings finds texts of r that contain a path at or under one of dirs
// (absolute, such as "/build"): the folder's name must be followed by "/" or
// the end of the text, and must not be the tail of a longer path, so that
// "/usr/src/x" is no leak of "/src". At most limit leaks are returned, in
// order; 0 means all.
func ScanStrings(r io.Reader, dirs []string, limit int) ([]Leak, error) {
	for _, d := range dirs {
		if !path.IsAbs(d) || path.Clean(d) != d || d == "/" {
			return nil, fmt.Errorf("scan for build paths: %q is no clean absolute folder", d)
		}
	}
	s := leakScanner{dirs: dirs, limit: limit}
	buf := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(r, buf)
		s.feed(buf[:n])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			s.endText()
			return s.found, nil
		case err != nil:
			return nil, err
		}
		if s.full() {
			return s.found, nil
		}
	}
}

type leakScanner struct {
	dirs  []string
	limit int
	found []Leak
	text  []byte // the printable bytes seen last
	start int64  // where text begins
	pos   int64
}

func (s *leakScanner) full() bool { return s.limit > 0 && len(s.found) >= s.limit }

func (s *leakScanner) feed(b []byte) {
	for len(b) > 0 && !s.full() {
		n := 0
		for n < len(b) && b[n] >= 0x20 && b[n] < 0x7f {
			n++
		}
		if n > 0 {
			if len(s.text) == 0 {
				s.start = s.pos
			}
			s.text = append(s.text, b[:n]...)
			s.pos += int64(n)
			b = b[n:]
			continue
		}
		s.endText()
		for n < len(b) && (b[n] < 0x20 || b[n] >= 0x7f) {
			n++
		}
		s.pos += int64(n)
		b = b[n:]
	}
}

func (s *leakScanner) endText() {
	defer func() { s.text = s.text[:0] }()
	for _, d := range s.dirs {
		for at := 0; !s.full(); {
			i := bytes.Index(s.text[at:], []byte(d))
			if i < 0 {
				break
			}
			i += at
			at = i + len(d)
			if at < len(s.text) && s.text[at] != '/' || i > 0 && pathByte(s.text[i-1]) {
				continue
			}
			from := max(0, i-maxLeak/4)
			s.found = append(s.found, Leak{Offset: s.start + int64(from), Text: string(s.text[from:min(len(s.text), from+maxLeak)])})
			break // one for each text and folder is enough to act on
		}
	}
}

// pathByte reports whether a byte before a path makes it a part of a longer one.
func pathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-+~", c) >= 0
}
