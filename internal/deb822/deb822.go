// Package deb822 reads and writes the format of Debian's control files, package
// indices and releases (deb822(5)): paragraphs of fields.
package deb822

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Field is one field of a paragraph. The value keeps its continuation lines
// verbatim, including the leading space of each.
type Field struct{ Name, Value string }

// Paragraph is a block of fields in their order.
type Paragraph []Field

// ErrFormat reports a text that is not in the deb822 format.
var ErrFormat = errors.New("invalid deb822 format")

// maxLine limits the length of a line, in bytes. The longest that occur are
// dependency lists of a few kilobytes.
const maxLine = 1 << 20

// Parse reads paragraphs separated by empty lines. A malformed line and a field that
// a paragraph has twice are an [ErrFormat].
func Parse(r io.Reader) ([]Paragraph, error) {
	var out []Paragraph
	var p Paragraph
	end := func() {
		if len(p) > 0 {
			out = append(out, p)
			p = nil
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), " \t\r")
		switch {
		case line == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			if len(p) == 0 {
				return nil, fmt.Errorf("%w: line %d is a continuation line without a field", ErrFormat, n)
			}
			p[len(p)-1].Value += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t#") {
				return nil, fmt.Errorf("%w: line %d has no field name", ErrFormat, n)
			}
			if p.Has(name) {
				return nil, fmt.Errorf("%w: line %d: duplicate field %s", ErrFormat, n, name)
			}
			p = append(p, Field{name, strings.TrimLeft(value, " \t")})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	end()
	return out, nil
}

// index returns the index of a field, or -1. Names are case-insensitive.
func (p Paragraph) index(name string) int {
	return slices.IndexFunc(p, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

// Has reports whether the paragraph has a field of that name, in any case.
func (p Paragraph) Has(name string) bool { return p.index(name) >= 0 }

// Get returns the value of a field, or "" if it is missing. Names are
// case-insensitive.
func (p Paragraph) Get(name string) string {
	if i := p.index(name); i >= 0 {
		return p[i].Value
	}
	return ""
}

// String returns the text of the paragraph, terminated by a newline.
func (p Paragraph) String() string {
	var b strings.Builder
	for _, f := range p {
		b.WriteString(f.Name + ":")
		if f.Value != "" && f.Value[0] != '\n' {
			b.WriteByte(' ')
		}
		b.WriteString(f.Value + "\n")
	}
	return b.String()
}
