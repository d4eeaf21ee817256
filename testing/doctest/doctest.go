// Package doctest extracts the programs in the documents, so that tests can compile and
// run what a reader would copy. It parses the fenced code blocks of Markdown and nothing
// else.
package doctest

import (
	"bytes"
	"regexp"
	"strings"
)

// Snippet is one fenced code block.
type Snippet struct {
	Language string // the first word after the fence
	Text     string // with its last newline, without the fences
	Line     int    // of the first line of Text, counted from 1
}

// Program reports whether the snippet is a complete Go program.
func (s Snippet) Program() bool {
	return s.Language == "go" && mainPackage.MatchString(s.Text)
}

var mainPackage = regexp.MustCompile(`(?m)^package main$`)

// Extract returns the fenced blocks of a Markdown document in their order. A
// fence is three or more backquotes or tildes, indented by at most three
// spaces, and ends at a fence of the same kind that is at least as long
// (spec.commonmark.org, "Fenced code blocks"). The indentation of the opening fence is
// removed from every line. An unclosed block ends with the document.
func Extract(markdown []byte) []Snippet {
	var found []Snippet
	var open *Snippet
	var fence string
	var indent int
	line := 0
	for raw := range bytes.Lines(markdown) {
		line++
		text := strings.TrimRight(string(raw), "\r\n")
		mark, info, spaces := parseFence(text)
		switch {
		case open == nil && mark != "":
			language, _, _ := strings.Cut(strings.TrimSpace(info), " ")
			open, fence, indent = &Snippet{Language: language, Line: line + 1}, mark, spaces
		case open == nil:
		case mark != "" && info == "" && mark[0] == fence[0] && len(mark) >= len(fence):
			found = append(found, *open)
			open = nil
		default:
			open.Text += unindent(text, indent) + "\n"
		}
	}
	if open != nil {
		found = append(found, *open)
	}
	return found
}

// parseFence parses a line that may open or close a block.
func parseFence(line string) (mark, info string, indent int) {
	rest := strings.TrimLeft(line, " ")
	indent = len(line) - len(rest)
	if indent > 3 || rest == "" || rest[0] != '`' && rest[0] != '~' {
		return "", "", 0
	}
	after := strings.TrimLeft(rest, rest[:1])
	mark = rest[:len(rest)-len(after)]
	if len(mark) < 3 || mark[0] == '`' && strings.Contains(after, "`") {
		return "", "", 0
	}
	return mark, strings.TrimSpace(after), indent
}

func unindent(line string, n int) string {
	for ; n > 0 && strings.HasPrefix(line, " "); n-- {
		line = line[1:]
	}
	return line
}
