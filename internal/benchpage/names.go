package benchpage

import "slices"

// Names of the benchmarks, which are also those of their sections on the page.
const (
	Tokens    = "tokens"
	Ready     = "ready"
	First     = "first"
	Flow      = "flow"
	Cancel    = "cancel"
	Batch     = "batch"
	Memory    = "memory"
	Extract   = "extract"
	Pack      = "pack"
	Compile   = "compile"
	Unchanged = "unchanged"
	// Go is every Go benchmark of the modules. It runs only if it is named, and has
	// no section.
	Go = "go"
)

// RunSide returns the benchmarks of what a user runs, which are in testing/bench, in
// the order of the page.
func RunSide() []string {
	return []string{Tokens, Ready, First, Flow, Cancel, Batch, Memory, Extract, Pack}
}

// BuildSide returns the benchmarks of the build itself.
func BuildSide() []string { return []string{Compile, Unchanged} }

// All returns the names of all benchmarks, in the order of the page.
func All() []string { return slices.Concat(RunSide(), BuildSide(), []string{Go}) }
