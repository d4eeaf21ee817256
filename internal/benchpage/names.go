package benchpage

import "slices"

// Names of the benchmarks, which are also those of their sections on the page.
const (
	Tokens    = "tokens"
	Ready     = "ready"
	Choice    = "choice"
	First     = "first"
	Flow      = "flow"
	Cancel    = "cancel"
	Batch     = "batch"
	Memory    = "memory"
	Models    = "models"
	CPU       = "cpu"
	Extract   = "extract"
	Pack      = "pack"
	Download  = "download"
	Compile   = "compile"
	Unchanged = "unchanged"
	Page      = "page"
	// Go is every Go benchmark of the modules. It runs only if it is named, and has
	// no section.
	Go = "go"
)

// RunSide returns the benchmarks of what a user runs, which are in testing/bench, in
// the order of the page.
func RunSide() []string {
	return []string{Tokens, Ready, Choice, First, Flow, Cancel, Batch, Memory, Models, CPU, Extract, Pack, Download}
}

// BuildSide returns the benchmarks of the build itself.
func BuildSide() []string { return []string{Compile, Unchanged, Page} }

// All returns the names of all benchmarks, in the order of the page.
func All() []string { return slices.Concat(RunSide(), BuildSide(), []string{Go}) }
