// Package benchpage writes the results of benchmarks to a Markdown page. The page has
// a section for each benchmark, with a table, goals and the machine of the measurement.
//
// A new result replaces its section and keeps the others, so that one benchmark can be
// repeated alone. A goal that was not met is reported like one that was. The package
// also has the statistics of a comparison; the benchmarks themselves are elsewhere.
package benchpage

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// Section is the result of one benchmark.
type Section struct {
	// Name is a lower-case word that selects the benchmark; Title is the heading.
	Name, Title string
	// Text has the paragraphs before the table: what was measured and how.
	Text []string
	// Head has the names of the columns, Rows the cells. The first column is text, the
	// others are figures.
	Head []string
	Rows [][]string
	// Plot is the file name of a picture beside the page, PlotText its description.
	Plot, PlotText string
	Goals          []Goal
}

// Goal is a limit and the measured value.
type Goal struct {
	What  string
	Got   float64
	Limit float64
	Unit  string // "times", "ms"; empty: a ratio, printed in per cent
	// AtLeast means that the value must not be below the limit instead of above it.
	AtLeast bool
}

// Met reports whether the goal is met.
func (g Goal) Met() bool {
	if g.AtLeast {
		return g.Got >= g.Limit
	}
	return g.Got <= g.Limit
}

// String returns a line such as "**not met**: packing at most 1.00 times; measured 1.20 times".
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

// value formats a value with its unit.
func (g Goal) value(v float64) string {
	if g.Unit == "" {
		return fmt.Sprintf("%.4g %%", 100*v)
	}
	return Figure(v) + " " + g.Unit
}

// Figure formats a number with about three significant digits.
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

// Ratio formats a ratio.
func Ratio(v float64) string { return fmt.Sprintf("%.3f", v) }

// Markdown returns the text of the section, with the machine of the measurement.
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

// ErrNoSection reports that a page lacks the marks of a section.
var ErrNoSection = errors.New("the page has no marks for the section")

// Replace replaces the text between the marks of a section.
func Replace(page, name, text string) (string, error) {
	head, rest, ok := strings.Cut(page, begin(name))
	if !ok {
		return "", fmt.Errorf("%w %q: add the line %q", ErrNoSection, name, strings.TrimSpace(begin(name)))
	}
	_, tail, ok := strings.Cut(rest, end(name))
	if !ok {
		return "", fmt.Errorf("%w %q: add the line %q", ErrNoSection, name, strings.TrimSpace(end(name)))
	}
	return head + begin(name) + "\n" + text + "\n" + end(name) + tail, nil
}

// Write replaces a section in the file of the page.
func Write(file string, s Section, on Machine) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the benchmarks page: %w", err)
	}
	text, err := Replace(string(old), s.Name, s.Markdown(on))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := regfile.Replace(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the benchmarks page: %w", err)
	}
	return nil
}
