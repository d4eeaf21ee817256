// Package benchpage is the form in which benchmarks are told: sections of one
// Markdown page, each with a table, the goals that it is measured against and
// the machine that it was measured on.
//
// A section that was measured takes the place of its older self, the others
// stay, so that one benchmark can be run again alone. A goal that was not
// reached is said as plainly as one that was. The package measures nothing.
package benchpage

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Section is what one benchmark tells.
type Section struct {
	// Name is how it is chosen, a lower-case word; Title stands above it.
	Name, Title string
	// Text are paragraphs in front of the table: what was measured, and how.
	Text []string
	// Head names the columns, Rows are as wide; the first column is text, the
	// others are figures.
	Head []string
	Rows [][]string
	// Plot is the name of a picture beside the page, PlotText what it shows.
	Plot, PlotText string
	Goals          []Goal
}

// Goal is a bar and what was measured.
type Goal struct {
	What  string
	Got   float64
	Limit float64
	Unit  string // "times", "ms"; empty: a share, told in percent
	// AtLeast turns the bar around: more is better.
	AtLeast bool
}

// Met reports whether the goal was reached.
func (g Goal) Met() bool {
	if g.AtLeast {
		return g.Got >= g.Limit
	}
	return g.Got <= g.Limit
}

// String is a line such as "not met: packing at most 1 times tar and zstd; measured 1.2 times".
func (g Goal) String() string {
	verdict, bound := "met", "at most"
	if !g.Met() {
		verdict = "**not met**"
	}
	if g.AtLeast {
		bound = "at least"
	}
	return fmt.Sprintf("%s: %s %s %s; measured %s", verdict, g.What, bound, g.value(g.Limit), g.value(g.Got))
}

// value writes a figure with three places or four digits, whichever is more.
func (g Goal) value(v float64) string {
	if g.Unit == "" {
		return fmt.Sprintf("%.4g %%", 100*v)
	}
	return Figure(v) + " " + g.Unit
}

// Figure writes a number with about three digits that count.
func Figure(v float64) string {
	abs := max(v, -v)
	switch {
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// Ratio writes how many times one is the other.
func Ratio(v float64) string { return fmt.Sprintf("%.3f", v) }

// Markdown is the section as it stands in the page, with the machine it was
// measured on.
func (s Section) Markdown(on Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n", s.Title)
	for _, text := range s.Text {
		fmt.Fprintf(&b, "\n%s\n", text)
	}
	if len(s.Rows) > 0 {
		fmt.Fprintf(&b, "\n| %s |\n|---%s|\n", strings.Join(s.Head, " | "), strings.Repeat("|---:", len(s.Head)-1))
		for _, row := range s.Rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
	}
	if s.Plot != "" {
		fmt.Fprintf(&b, "\n![%s](%s)\n", s.PlotText, s.Plot)
	}
	if len(s.Goals) > 0 {
		b.WriteString("\nGoals:\n\n")
		for _, g := range s.Goals {
			fmt.Fprintf(&b, "- %s\n", g)
		}
	}
	fmt.Fprintf(&b, "\nMeasured on %s.\n", on)
	return b.String()
}

func begin(name string) string { return "<!-- begin " + name + " -->\n" }
func end(name string) string   { return "<!-- end " + name + " -->\n" }

// ErrNoPlace says that a page has no place for a section.
var ErrNoPlace = errors.New("the page has no place for the section")

// Replace puts text between the marks of the section called name.
func Replace(page, name, text string) (string, error) {
	head, rest, ok := strings.Cut(page, begin(name))
	if !ok {
		return "", fmt.Errorf("%w %q: it wants the line %q", ErrNoPlace, name, strings.TrimSpace(begin(name)))
	}
	_, tail, ok := strings.Cut(rest, end(name))
	if !ok {
		return "", fmt.Errorf("%w %q: it wants the line %q", ErrNoPlace, name, strings.TrimSpace(end(name)))
	}
	return head + begin(name) + "\n" + text + "\n" + end(name) + tail, nil
}

// Write puts the section into the page's file.
func Write(file string, s Section, on Machine) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the page of benchmarks: %w", err)
	}
	text, err := Replace(string(old), s.Name, s.Markdown(on))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the page of benchmarks: %w", err)
	}
	return nil
}
