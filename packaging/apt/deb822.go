package apt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// field is one field of a paragraph. The value keeps its continuation lines
// verbatim, including the leading space of each.
type field struct{ name, value string }

// paragraph is a block of fields in their order, as in control files, Packages
// and Release (deb822(5)).
type paragraph []field

// errFormat reports a text that is not in the deb822 format.
var errFormat = errors.New("invalid deb822 format")

// maxLine limits the length of a line, in bytes. The longest that occur are
// dependency lists of a few kilobytes.
const maxLine = 1 << 20

// parse reads paragraphs separated by empty lines.
func parse(r io.Reader) ([]paragraph, error) {
	var out []paragraph
	var p paragraph
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
				return nil, fmt.Errorf("%w: line %d is a continuation line without a field", errFormat, n)
			}
			p[len(p)-1].value += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t#") {
				return nil, fmt.Errorf("%w: line %d has no field name", errFormat, n)
			}
			if p.has(name) {
				return nil, fmt.Errorf("%w: line %d: duplicate field %s", errFormat, n, name)
			}
			p = append(p, field{name, strings.TrimLeft(value, " \t")})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	end()
	return out, nil
}

// index returns the index of a field, or -1. Names are case-insensitive.
func (p paragraph) index(name string) int {
	return slices.IndexFunc(p, func(f field) bool { return strings.EqualFold(f.name, name) })
}

func (p paragraph) has(name string) bool { return p.index(name) >= 0 }

// get returns the value of a field, or "" if it is missing.
func (p paragraph) get(name string) string {
	if i := p.index(name); i >= 0 {
		return p[i].value
	}
	return ""
}

// String returns the text of the paragraph, terminated by a newline.
func (p paragraph) String() string {
	var b strings.Builder
	for _, f := range p {
		b.WriteString(f.name + ":")
		if f.value != "" && f.value[0] != '\n' {
			b.WriteByte(' ')
		}
		b.WriteString(f.value + "\n")
	}
	return b.String()
}
