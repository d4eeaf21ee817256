package apt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// field is one field of a paragraph. The value keeps its further lines as they
// stand, each with the blank that it begins with.
type field struct{ name, value string }

// paragraph is a block of fields in their order, as in control files, Packages
// and Release (deb822(5)).
type paragraph []field

// errFormat says that a text is not in the format of control files.
var errFormat = errors.New("not in the format of control files")

// maxLine bounds one line of a control file, in bytes. Dependency lists are the
// longest that occur, at some kilobytes.
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
				return nil, fmt.Errorf("%w: line %d continues nothing", errFormat, n)
			}
			p[len(p)-1].value += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t#") {
				return nil, fmt.Errorf("%w: line %d has no field name", errFormat, n)
			}
			if p.has(name) {
				return nil, fmt.Errorf("%w: line %d: field %s stands there twice", errFormat, n, name)
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

// index is -1 where there is no such field; names differ in more than case.
func (p paragraph) index(name string) int {
	return slices.IndexFunc(p, func(f field) bool { return strings.EqualFold(f.name, name) })
}

func (p paragraph) has(name string) bool { return p.index(name) >= 0 }

// get gives a field's value, empty when it is missing.
func (p paragraph) get(name string) string {
	if i := p.index(name); i >= 0 {
		return p[i].value
	}
	return ""
}

// String writes the paragraph with a line feed at its end.
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
