package backendops

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// row sums up the results of an operation.
type row struct {
	equal, unsupported, different, crashed int
	supportedTypes, unsupportedTypes       map[string]bool
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
	order := []Outcome{Equal, Unsupported, Different, Crashed}
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

// WriteTable writes the results in Markdown: a row for each operation, and below it each case that
// differs or crashed, with the reason. The results are those of Merge.
func WriteTable(w io.Writer, results []Result) error {
	rows := map[string]*row{}
	var failed []Result
	for _, r := range results {
		sum := rows[r.Operation]
		if sum == nil {
			sum = &row{supportedTypes: map[string]bool{}, unsupportedTypes: map[string]bool{}}
			rows[r.Operation] = sum
		}
		into := sum.supportedTypes
		switch r.Outcome {
		case Equal:
			sum.equal++
		case Unsupported:
			sum.unsupported++
			into = sum.unsupportedTypes
		case Different:
			sum.different++
		case Crashed:
			sum.crashed++
		}
		if r.Outcome != Equal && r.Outcome != Unsupported {
			failed = append(failed, r)
			continue
		}
		for _, t := range types(r.Case) {
			into[t] = true
		}
	}
	var b strings.Builder
	b.WriteString("| operation | types | equal | different | unsupported | types that are never supported |\n|---|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		sum := rows[name]
		for t := range sum.supportedTypes {
			delete(sum.unsupportedTypes, t)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s |\n", name, names(sum.supportedTypes), sum.equal, sum.different+sum.crashed, sum.unsupported, names(sum.unsupportedTypes))
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
