// Package rooms holds the directions in which the project's packages may
// import each other: which room may know which, and what the run side must
// never drag into a user's program.
//
// The linter (depguard) sees direct imports while one edits; this package
// looks at everything that a room reaches, on each platform. It judges a list
// of packages and does not ask the go command itself; its test does.
package rooms

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path of the project's module.
const Module = "forge.lthn.ai/core/go-rocm"

// Package is what `go list -json` tells of a package.
type Package struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// Room is a folder of the project with what it may import directly, beside
// the standard library and itself.
type Room struct {
	Folder string // "pkg/gfx"; packages below it belong to it
	May    []string
}

// onRunSide tells whether a folder of the project goes into users' programs.
func onRunSide(folder string) bool {
	top, _, _ := strings.Cut(folder, "/")
	return slices.Contains([]string{"pkg", "runtime", "embed", "cmd"}, top)
}

// neverOnRunSide tells whether only the build side may reach a package. What is
// internal belongs to the build side, except for the rooms there.
func neverOnRunSide(path string) bool {
	if within(path, Module+"/internal") {
		return !slices.ContainsFunc(Rooms(), func(r Room) bool { return within(path, Module+"/"+r.Folder) })
	}
	return slices.ContainsFunc([]string{
		"github.com/docker/docker",
		"github.com/goreleaser/nfpm",
		"github.com/magefile/mage",
		Module + "/docker",
		Module + "/packaging",
		Module + "/testing",
	}, func(n string) bool { return within(path, n) })
}

// Rooms returns the rooms whose direct imports are bounded: all of the run side,
// and what both sides use.
func Rooms() []Room {
	const (
		zstd = "github.com/klauspost/compress"
		sys  = "golang.org/x/sys"
	)
	own := func(folders ...string) []string {
		for i, f := range folders {
			folders[i] = Module + "/" + f
		}
		return folders
	}
	return []Room{
		{"pkg/gfx", nil},
		{"pkg/gguf", nil},
		{"internal/ctxio", nil},
		{"pkg/inference", nil},
		{"pkg/llamaapi", nil},
		{"pkg/elfdep", append(own("pkg/gfx"), zstd)},
		{"pkg/bundle", append(own("pkg/gfx", "internal/ctxio"), zstd, sys)},
		{"pkg/release", append(own("pkg/bundle", "internal/ctxio"), "github.com/secure-systems-lab/go-securesystemslib", "aead.dev/minisign", "github.com/ProtonMail/go-crypto")},
		{"embed", own("pkg/bundle")},
		{"runtime/extract", append(own("pkg/gfx", "pkg/bundle"), sys, zstd)},
		{"pkg/hostlib", nil},
		{"runtime/hostrocm", own("pkg/gfx", "pkg/bundle", "pkg/elfdep", "pkg/hostlib")},
		{"runtime/gpu", append(own("pkg/gfx"), sys)},
		{"runtime/plan", own("pkg/gfx", "pkg/gguf", "runtime/gpu")},
		{"runtime/host", nil},
		{"runtime/supervise", []string{sys}},
		{"runtime/doctor", append(own("pkg/gfx", "pkg/bundle", "runtime/gpu", "runtime/host", "runtime/hostrocm"), sys)},
		{"pkg/rocm", append(own("pkg", "runtime", "embed"), sys)},
		{"cmd/go-rocm", append(own("pkg", "runtime", "embed"), sys, "github.com/pelletier/go-toml/v2", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term")},
	}
}

// Violation is one import against the directions, or a package without any.
type Violation struct {
	From string
	// To is what From may not know; empty when From is in no room.
	To string
	// Via is the chain of imports between the two, empty for a direct one.
	Via []string
	Why string
}

// String gives the chain and the rule.
func (v Violation) String() string {
	if v.To == "" {
		return fmt.Sprintf("%s: %s", v.From, v.Why)
	}
	chain := slices.Concat([]string{v.From}, v.Via, []string{v.To})
	return fmt.Sprintf("%s: %s", strings.Join(chain, " -> "), v.Why)
}

// Check judges a whole program: every package of the module with all its
// dependencies.
func Check(packages []Package) []Violation {
	g := graph{}
	for _, p := range packages {
		g[p.ImportPath] = p
	}
	var found []Violation
	for _, p := range packages {
		folder, ours := strings.CutPrefix(p.ImportPath, Module+"/")
		if !ours {
			continue
		}
		found = append(found, g.direct(p, folder)...)
		if onRunSide(folder) {
			found = append(found, g.reached(p)...)
		}
	}
	return found
}

type graph map[string]Package

// direct holds a package to what its room may import.
func (g graph) direct(p Package, folder string) []Violation {
	var found []Violation
	roomless := onRunSide(folder)
	for _, room := range Rooms() {
		if !within(folder, room.Folder) {
			continue
		}
		roomless = false
		allowed := append([]string{Module + "/" + room.Folder}, room.May...)
		for _, to := range p.Imports {
			if g.standard(to) || slices.ContainsFunc(allowed, func(a string) bool { return within(to, a) }) {
				continue
			}
			found = append(found, Violation{From: p.ImportPath, To: to, Why: room.Folder + " may not import it"})
		}
	}
	if roomless {
		found = append(found, Violation{From: p.ImportPath, Why: "it is in no room; say in Rooms what it may import"})
	}
	return found
}

// reached walks all that a package of the run side pulls in.
func (g graph) reached(p Package) []Violation {
	type step struct {
		path string
		via  []string
	}
	var found []Violation
	seen := map[string]bool{p.ImportPath: true}
	for queue := []step{{p.ImportPath, nil}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, to := range g[at.path].Imports {
			if seen[to] {
				continue
			}
			seen[to] = true
			if neverOnRunSide(to) {
				found = append(found, Violation{From: p.ImportPath, To: to, Via: at.via, Why: "the run side never reaches it"})
				continue
			}
			queue = append(queue, step{to, append(slices.Clip(at.via), to)})
		}
	}
	return found
}

// standard tells whether a path belongs to the standard library. A package
// that was not listed counts as foreign.
func (g graph) standard(path string) bool {
	p, ok := g[path]
	return ok && p.Standard || path == "unsafe" || path == "C"
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}
