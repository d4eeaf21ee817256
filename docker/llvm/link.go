package llvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// Inputs key a linked libLLVM.
type Inputs struct {
	Package   toolchain.Package // the static libraries
	Major     string
	Toolchain []toolchain.Package
	Image     string `json:",omitempty"`
	Script    string
	Stubs     string
	SONAME    string
	Needed    []string // libraries that the full one needs
	Wanted    []elfdep.Symbol
	Targets   []string
}

// Inputs returns the key of a link: the plan, the full library of the image, and the symbols that the
// bundle imports from it.
func (b *Builder) Inputs(plan *Plan, whole elfdep.Lib, wanted []elfdep.Symbol) Inputs {
	in := Inputs{
		Package: plan.LLVM.Development, Major: plan.LLVM.Major, Toolchain: b.Toolchain.Packages,
		Script: plan.Script, Stubs: plan.Stubs, SONAME: whole.SONAME, Needed: whole.Needed,
		Wanted: wanted, Targets: plan.Targets,
	}
	if b.Spec.HasBaseImage() {
		in.Image = b.Toolchain.ID
	}
	return in
}

// Library is a libLLVM that this build has linked.
type Library struct {
	SONAME string
	Owner  string // the package of the full one
	Inputs Inputs
	Result *stage.Result
}

// File returns the path of the library.
func (l *Library) File() string { return filepath.Join(l.Result.Dir, l.SONAME) }

// Stage returns the manifest's entry for the library.
func (l *Library) Stage() bundle.Stage {
	p := l.Inputs.Package
	return bundle.Stage{
		Name: l.Result.Name, Digest: l.Result.Key, Output: l.Result.Output,
		Options: []string{
			"file=" + l.SONAME,
			fmt.Sprintf("package=%s %s %s sha256:%s", p.Name, p.Version, p.Arch, p.SHA256),
			"targets=" + strings.Join(l.Inputs.Targets, ";"),
			fmt.Sprintf("symbols=%d", len(l.Inputs.Wanted)),
		},
	}
}

// Link fetches the static libraries and links the library, as a stage of the
// cache. An archive without the package, and a link that fails, are an [*Error].
func (b *Builder) Link(ctx context.Context, l toolchain.LLVM, in Inputs) (*stage.Result, error) {
	files, err := linkFiles(in)
	if err != nil {
		return nil, err
	}
	pkg, err := toolchain.Fetch(ctx, b.Engine, b.Cache, b.Spec, b.Toolchain, in.Package, b.Log)
	var dropped *toolchain.NotInArchiveError
	if errors.As(err, &dropped) {
		return nil, &Error{LLVM: l, Err: err}
	}
	if err != nil {
		return nil, err
	}
	return b.Cache.Do(ctx, "llvm", in, func(ctx context.Context, dir string) error {
		src, err := os.MkdirTemp(filepath.Dir(dir), "llvm-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(src) // a killed build leaves it in the unfinished stage, which is removed
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		if err := os.Link(filepath.Join(pkg.Dir, toolchain.FetchedPackage), filepath.Join(src, "package.deb")); err != nil {
			return err
		}
		log, err := b.OpenLog("llvm")
		if err != nil {
			return err
		}
		err = b.Engine.Run(ctx, engine.Job{
			Name: "llvm", Image: b.Toolchain.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", in.Script, "link", in.Major, in.SONAME}, in.Needed...),
			Env: append(environment(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.Time.Unix())),
			Dir: "/build", UID: toolchain.User, GID: toolchain.User, Volumes: []string{"/src", "/build"},
			In:  []engine.Input{{Dir: "/src", Write: engine.TarDirectory(src, toolchain.User, b.Time)}},
			Out: []engine.Output{{Path: "/build/out", Read: engine.ExtractFiles(dir)}},
			Log: log, Memory: b.Memory,
		})
		var exit *engine.ExitError
		if errors.As(err, &exit) {
			err = &Error{LLVM: l, Err: err}
		}
		return errors.Join(err, log.Close())
	})
}

// setupFunction matches the functions that register a target.
var setupFunction = regexp.MustCompile(`^LLVMInitialize([A-Za-z0-9]+?)(TargetInfo|TargetMCA|TargetMC|Target|AsmPrinter|AsmParser|Disassembler)$`)

// linkFiles returns the files for the link script: the symbols to keep, under the
// one version that the library defines them in, and the targets whose setup
// functions are empty.
func linkFiles(in Inputs) (map[string]string, error) {
	if len(in.Wanted) == 0 {
		return nil, fmt.Errorf("nothing in the bundle imports a symbol of %s", in.SONAME)
	}
	version := in.Wanted[0].Version
	var wanted, versions, empty strings.Builder
	fmt.Fprintf(&versions, "%s {\nglobal:\n", version)
	for _, s := range in.Wanted {
		if s.Version != version || version == "" {
			return nil, fmt.Errorf("%s defines symbols in the versions %q and %q; exactly one is supported", in.SONAME, version, s.Version)
		}
		fmt.Fprintln(&wanted, s.Name)
		fmt.Fprintf(&versions, "\t%s;\n", s.Name)
		if m := setupFunction.FindStringSubmatch(s.Name); m != nil && !slices.Contains(in.Targets, m[1]) {
			fmt.Fprintf(&empty, "NO_TARGET(%s)\n", s.Name)
		}
	}
	versions.WriteString("local:\n\t*;\n};\n")
	return map[string]string{"wanted": wanted.String(), "versions.map": versions.String(), "targets.inc": empty.String(), "stubs.cpp": in.Stubs}, nil
}
