// Package archtest checks the directions in which the project's packages import
// each other: what each package may import, and what the run side must never
// pull into a user's program.
//
// The linter (depguard) sees direct imports in the editor. This package checks
// the whole import graph, on each platform. It takes a list of packages and does
// not run the go command itself; its test does.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path of the project's module.
const Module = "forge.lthn.ai/core/go-rocm"

// Package is one package as `go list -json` prints it.
type Package struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// Rule lists what the packages of a directory may import directly, besides the
// standard library and each other.
type Rule struct {
	// Dir is relative to the module's root, for example "pkg/gfx". It includes the
	// packages below it, except for ".", which is the root package alone.
	Dir   string
	Allow []string
}

// Rules returns a rule for each directory of the run side and for each package
// that both sides use.
func Rules() []Rule {
	const (
		zstd = "github.com/klauspost/compress"
		sys  = "golang.org/x/sys"
	)
	own := func(dirs ...string) []string {
		for i, dir := range dirs {
			dirs[i] = importPath(dir)
		}
		return dirs
	}
	return []Rule{
		{"pkg/gfx", nil},
		{"pkg/gguf", nil},
		{"pkg/modelref", nil},
		{"internal/ctxio", nil},
		{"internal/userdirs", []string{sys}},
		{"internal/regfile", []string{sys}},
		{"pkg/inference", own("pkg/gguf")},
		{"pkg/llamaapi", nil},
		{"internal/sparse", nil},
		{"internal/fsync", []string{sys}},
		{"internal/procstat", nil},
		{"pkg/elfdep", own("internal/sparse")},
		{"pkg/offload", append(own("pkg/gfx", "pkg/elfdep", "internal/sparse"), zstd)},
		{"pkg/bundle", append(own("pkg/gfx", "internal/ctxio", "internal/fsync", "internal/regfile", "internal/sparse"), zstd)},
		{"pkg/release", append(own("pkg/bundle", "internal/ctxio", "internal/regfile"), "github.com/secure-systems-lab/go-securesystemslib", "aead.dev/minisign", "github.com/ProtonMail/go-crypto")},
		{"embed", own("pkg/bundle")},
		{"runtime/extract", append(own("pkg/gfx", "pkg/bundle", "internal/fsync", "internal/userdirs"), sys, zstd)},
		{"pkg/hostlib", nil},
		{"runtime/hostrocm", own("pkg/gfx", "pkg/bundle", "pkg/elfdep", "pkg/hostlib")},
		{"runtime/gpu", append(own("pkg/gfx"), sys)},
		{"runtime/plan", own("pkg/gfx", "pkg/gguf", "runtime/gpu")},
		{"runtime/download", append(own("internal/ctxio", "internal/fsync", "internal/regfile"), sys)},
		{"runtime/host", nil},
		{"runtime/modelstore", append(own("pkg/modelref", "internal/ctxio", "internal/fsync", "internal/regfile", "internal/userdirs"), sys)},
		{"runtime/scheduler", nil},
		{"runtime/supervise", append(own("internal/ctxio", "internal/procstat", "internal/userdirs"), sys)},
		{"runtime/locate", own("internal/userdirs", "embed", "pkg/bundle", "pkg/offload", "pkg/gfx", "runtime/extract", "runtime/gpu", "runtime/supervise")},
		{"runtime/speed", own("internal/regfile", "internal/userdirs", "runtime/gpu")},
		{"runtime/machine", own("pkg/bundle", "pkg/gfx", "pkg/gguf", "runtime/gpu", "runtime/host", "runtime/hostrocm", "runtime/locate", "runtime/modelstore", "runtime/plan", "runtime/speed")},
		{"runtime/hub", own("pkg/gguf", "pkg/modelref", "internal/regfile", "runtime/download")},
		{"runtime/oci", own("pkg/gguf", "pkg/modelref", "internal/ctxio", "internal/regfile", "runtime/download")},
		{"runtime/pull", own("pkg/gguf", "pkg/modelref", "internal/regfile", "runtime/download", "runtime/hub", "runtime/machine", "runtime/modelstore", "runtime/oci", "runtime/plan")},
		{"runtime/doctor", append(own("pkg/gfx", "pkg/bundle", "runtime/gpu", "runtime/host", "runtime/hostrocm", "runtime/speed"), sys)},
		{".", append(own("pkg", "runtime", "embed", "internal/regfile"), sys)},
		{"internal/sdnotify", nil},
		{"internal/webui", []string{zstd}},
		{"internal/statuspage", nil},
		{"internal/activity", own("runtime/gpu")},
		{"internal/metrics", append(own("internal/activity", "runtime/gpu", "runtime/supervise"), "github.com/prometheus")},
		{"internal/gateway", append(own(".", "internal/activity", "runtime/supervise", "internal/regfile", "internal/webui", "internal/statuspage"), sys, "golang.org/x/time/rate")},
		{"cmd/go-rocm", append(own(".", "pkg", "runtime", "embed", "internal/activity", "internal/gateway", "internal/metrics", "internal/regfile", "internal/sdnotify", "internal/userdirs", "internal/webui"), sys, "github.com/pelletier/go-toml/v2", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term")},
	}
}

// importPath returns the import path of a directory.
func importPath(dir string) string {
	if dir == "." {
		return Module
	}
	return Module + "/" + dir
}

// directory returns the directory of an import path, relative to the module's
// root; ok is false for the packages of other modules.
func directory(path string) (dir string, ok bool) {
	if path == Module {
		return ".", true
	}
	return strings.CutPrefix(path, Module+"/")
}

// runSide reports whether a directory of the project goes into users' programs.
func runSide(dir string) bool {
	top, _, _ := strings.Cut(dir, "/")
	return slices.Contains([]string{".", "pkg", "runtime", "embed", "cmd"}, top)
}

// buildOnly reports whether a package belongs to the build side alone. Packages
// below internal do, except for those with a rule.
func buildOnly(path string) bool {
	if dir, ours := directory(path); ours && within(dir, "internal") {
		return !slices.ContainsFunc(Rules(), func(r Rule) bool { return matches(dir, r.Dir) })
	}
	return slices.ContainsFunc([]string{
		"github.com/docker/docker",
		"github.com/goreleaser/nfpm",
		"github.com/magefile/mage",
		importPath("docker"),
		importPath("packaging"),
		importPath("testing"),
	}, func(p string) bool { return within(path, p) })
}

// Violation is one forbidden import, or a package without a rule.
type Violation struct {
	From string
	// To is the package that From must not import; empty when From has no rule.
	To string
	// Via is the chain of imports between the two, empty for a direct import.
	Via []string
	Why string
}

// String returns the chain of imports and the rule that it breaks.
func (v Violation) String() string {
	if v.To == "" {
		return fmt.Sprintf("%s: %s", v.From, v.Why)
	}
	chain := slices.Concat([]string{v.From}, v.Via, []string{v.To})
	return fmt.Sprintf("%s: %s", strings.Join(chain, " -> "), v.Why)
}

// Check returns the violations in a list of packages, which must hold every
// package of the module and all its dependencies.
func Check(packages []Package) []Violation {
	g := graph{}
	for _, p := range packages {
		g[p.ImportPath] = p
	}
	var found []Violation
	for _, p := range packages {
		dir, ours := directory(p.ImportPath)
		if !ours {
			continue
		}
		found = append(found, g.direct(p, dir)...)
		if runSide(dir) {
			found = append(found, g.transitive(p)...)
		}
	}
	return found
}

type graph map[string]Package

// direct checks the imports of a package against the rules of its directory.
func (g graph) direct(p Package, dir string) []Violation {
	var found []Violation
	missing := runSide(dir)
	for _, rule := range Rules() {
		if !matches(dir, rule.Dir) {
			continue
		}
		missing = false
		allow := append([]string{importPath(rule.Dir)}, rule.Allow...)
		for _, to := range p.Imports {
			if g.standard(to) || slices.ContainsFunc(allow, func(a string) bool { return allowed(to, a) }) {
				continue
			}
			found = append(found, Violation{From: p.ImportPath, To: to, Why: rule.Dir + " may not import it"})
		}
	}
	if missing {
		found = append(found, Violation{From: p.ImportPath, Why: "it has no rule: add one to Rules"})
	}
	return found
}

// transitive checks everything that a package of the run side pulls in.
func (g graph) transitive(p Package) []Violation {
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
			if buildOnly(to) {
				found = append(found, Violation{From: p.ImportPath, To: to, Via: at.via, Why: "the run side never reaches it"})
				continue
			}
			queue = append(queue, step{to, append(slices.Clip(at.via), to)})
		}
	}
	return found
}

// standard reports whether a path belongs to the standard library. A package
// that is not in the list counts as foreign.
func (g graph) standard(path string) bool {
	p, ok := g[path]
	return ok && p.Standard || path == "unsafe" || path == "C"
}

// matches reports whether a rule for ruleDir applies to the package in dir.
func matches(dir, ruleDir string) bool {
	return dir == ruleDir || ruleDir != "." && within(dir, ruleDir)
}

// allowed reports whether an entry of Rule.Allow covers an import. The root
// package does not cover the packages below it.
func allowed(path, entry string) bool {
	return path == entry || entry != Module && within(path, entry)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
