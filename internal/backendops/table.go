package backendops

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// row sums up the results of an operation.
type row struct {
	equal, unsupported, different, notRun int
	unlisted                              bool // cases of a fused operation were not run: nobody knows how many
	runTypes, leftTypes, unsupportedTypes map[string]bool
}

// number matches a number; anything else, such as a type, is the name of something.
var number = regexp.MustCompile(`^-?[0-9.]+(e-?[0-9]+)?$`)

// param is one parameter of a case.
type param struct{ name, value string }

// params reads the parameters of a case. A list in brackets is one value.
func params(c Case) []param {
	var out []param
	depth, start := 0, 0
	add := func(text string) {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			name, value = "", text
		}
		out = append(out, param{name, value})
	}
	for i, b := range []byte(c.Params) {
		switch {
		case b == '[':
			depth++
		case b == ']':
			depth--
		case b == ',' && depth == 0:
			add(c.Params[start:i])
			start = i + 1
		}
	}
	if start < len(c.Params) {
		add(c.Params[start:])
	}
	return out
}

// types returns the types of a case's operands, each once.
func types(c Case) []string {
	var out []string
	for _, p := range params(c) {
		if (strings.Contains(p.name, "type") || p.name == "m_prec") && !number.MatchString(p.value) && !slices.Contains(out, p.value) {
			out = append(out, p.value)
		}
	}
	return out
}

// Merge returns one result for each case: of several, the worst. They are sorted.
func Merge(results []Result) []Result {
	order := []Outcome{NotRun, TooSlow, Equal, Unsupported, Different, Crashed}
	worst := map[Case]Result{}
	for _, r := range results {
		if old, ok := worst[r.Case]; !ok || slices.Index(order, old.Outcome) < slices.Index(order, r.Outcome) {
			worst[r.Case] = r
		}
	}
	return slices.SortedFunc(maps.Values(worst), func(a, b Result) int { return strings.Compare(a.String(), b.String()) })
}

// Count returns the number of results with an outcome.
func Count(results []Result, o Outcome) int {
	n := 0
	for _, r := range results {
		if r.Outcome == o {
			n++
		}
	}
	return n
}

// add adds a result to the row.
func (sum *row) add(r Result) {
	into := sum.runTypes
	switch r.Outcome {
	case Equal:
		sum.equal++
	case Different, Crashed:
		sum.different++
	case Unsupported:
		sum.unsupported++
		into = sum.unsupportedTypes
	case NotRun, TooSlow:
		sum.notRun++
		sum.unlisted = sum.unlisted || r.Params == ""
		into = sum.leftTypes
	}
	for _, t := range types(r.Case) {
		into[t] = true
	}
}

// left returns the cell with the number of cases that were not run.
func (sum *row) left() string {
	if sum.unlisted {
		return "some"
	}
	return strconv.Itoa(sum.notRun)
}

// WriteTable writes the results in Markdown: a row for each operation, and below it each case that
// differs, crashed or was too slow, with the reason. The results are those of Merge.
func WriteTable(w io.Writer, results []Result) error {
	rows := map[string]*row{}
	var failed []Result
	for _, r := range results {
		if rows[r.Operation] == nil {
			rows[r.Operation] = &row{runTypes: map[string]bool{}, leftTypes: map[string]bool{}, unsupportedTypes: map[string]bool{}}
		}
		rows[r.Operation].add(r)
		if r.Outcome == Different || r.Outcome == Crashed || r.Outcome == TooSlow {
			failed = append(failed, r)
		}
	}
	var b strings.Builder
	b.WriteString("| operation | types that were run | equal | different | not run | unsupported | types that are never supported |\n|---|---|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		sum := rows[name]
		maps.DeleteFunc(sum.unsupportedTypes, func(t string, _ bool) bool { return sum.runTypes[t] || sum.leftTypes[t] })
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s | %d | %s |\n", name, names(sum.runTypes), sum.equal, sum.different, sum.left(), sum.unsupported, names(sum.unsupportedTypes))
	}
	if len(failed) > 0 {
		b.WriteString("\n| case | outcome | reason |\n|---|---|---|\n")
		for _, r := range failed {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Case, r.Outcome, strings.ReplaceAll(r.Reason, "|", "\\|"))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func names(set map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(set)), ", ") }
