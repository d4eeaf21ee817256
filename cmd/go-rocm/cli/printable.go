package cli

import (
	"strings"
	"unicode"
)

// briefRunes is how much of a string of a model's file a table shows.
const briefRunes = 80

// printable makes a text of somebody else fit for one line of a terminal: what
// does not print, line ends and control codes with it, becomes U+FFFD.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// brief is printable and ends after so many runes that a line stays a line.
func brief(s string) string {
	n := 0
	for i := range s {
		if n++; n > briefRunes {
			return printable(s[:i]) + "…"
		}
	}
	return printable(s)
}

// harmless makes a text of several lines fit for a terminal: its control codes,
// which could drive that, become U+FFFD, and carriage returns are left out.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
