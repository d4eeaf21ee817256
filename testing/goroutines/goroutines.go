// Package goroutines finds goroutines that a test leaks. It compares them by what they
// do and not by their number alone: a goroutine that ends meanwhile must not hide one
// that stays.
package goroutines

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// Set is the number of goroutines for each function and its creator.
type Set map[string]int

// Running returns the goroutines that run now.
func Running() Set { return Parse(Stacks()) }

// Since describes the goroutines that s has and before does not have, one function in
// each line.
func (s Set) Since(before Set) []string {
	var more []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if n, old := s[name], before[name]; n > old {
			more = append(more, fmt.Sprintf("%d goroutines of %s, %d before", n, name, old))
		}
	}
	return more
}

// Stacks returns the stacks of all goroutines.
func Stacks() string {
	for b := make([]byte, 1<<20); ; b = make([]byte, 2*len(b)) {
		if n := runtime.Stack(b, true); n < len(b) {
			return string(b[:n])
		}
	}
}

// Parse counts the goroutines in a trace of runtime.Stack, or of a program that SIGQUIT
// has ended.
func Parse(trace string) Set {
	count := Set{}
	for block := range strings.SplitSeq(trace, "\n\n") {
		var function, creator string
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			switch by, ok := strings.CutPrefix(line, "created by "); {
			case ok:
				by, _, _ = strings.Cut(by, " in goroutine ")
				creator = ", created by " + by
			case strings.HasPrefix(line, "goroutine "), strings.HasPrefix(line, "\t"), line == "":
			default:
				function = line[:max(0, strings.LastIndexByte(line, '('))]
			}
		}
		if function != "" {
			count[function+creator]++
		}
	}
	return count
}
