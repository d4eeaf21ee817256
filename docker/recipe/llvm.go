package recipe

import (
	"context"
	_ "embed" // the script and the stubs are part of the program
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
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// Debian's comgr takes its code generator from libLLVM, which holds every
// target, Polly, a JIT and much more, and which alone needs Z3. What comgr calls
// of it is a part of that, so the part is linked anew, of the same object
// files. A comgr that has LLVM inside, as AMD's, leaves nothing to do here.

var (
	//go:embed llvm/link.sh
	linkLLVMScript string
	//go:embed llvm/stubs.cpp
	llvmStubs string
)

// llvmTargets are the targets that stay, as in AMD's own builds of comgr.
var llvmTargets = []string{"AMDGPU", "X86"}

var (
	llvmSONAME = regexp.MustCompile(`^libLLVM\.so\.[0-9.]+$`)
	// llvmSetUp matches the functions that make a target known.
	llvmSetUp = regexp.MustCompile(`^LLVMInitialize([A-Za-z0-9]+?)(TargetInfo|TargetMCA|TargetMC|Target|AsmPrinter|AsmParser|Disassembler)$`)
)

// llvmPlan keys what a bundle does about libLLVM, where its toolchain has one.
type llvmPlan struct {
	LLVM          toolchain.LLVM
	Targets       []string
	Script, Stubs string
	Proof         []string // what tries it out
}

func planLLVM(t *toolchain.Toolchain) (*llvmPlan, error) {
	l, ok, err := toolchain.LLVMOf(t.Packages)
	if err != nil || !ok {
		return nil, err
	}
	return &llvmPlan{
		LLVM: l, Targets: llvmTargets, Script: linkLLVMScript, Stubs: llvmStubs,
		Proof: []string{probeSource, probeScript, probeKernels},
	}, nil
}

// LLVMError says that the part of libLLVM could not be made.
type LLVMError struct {
	LLVM toolchain.LLVM
	Err  error
}

// Error says what was tried.
func (e *LLVMError) Error() string {
	return fmt.Sprintf("link a small libLLVM of %s %s: %v", e.LLVM.Development.Name, e.LLVM.Development.Version, e.Err)
}

// Unwrap gives the cause.
func (e *LLVMError) Unwrap() error { return e.Err }

// optional tells whether a bundle may have the whole libLLVM instead: not in a
// locked build, and where the package is the locked one, which is known to
// work, only when it cannot be had any more.
func (e *LLVMError) optional(lockedBuild bool) bool {
	var gone *toolchain.NotInArchiveError
	return !lockedBuild && (!e.LLVM.Locked || errors.As(e.Err, &gone))
}

// wholeLLVM begins the deviation that a bundle with the whole libLLVM has.
const wholeLLVM = "libLLVM is the whole one of "

// deviation is what the manifest of such a bundle says.
func (e *LLVMError) deviation() string {
	return fmt.Sprintf(wholeLLVM+"%s %s, since none could be linked of %s", e.LLVM.Runtime.Name, e.LLVM.Runtime.Version, e.LLVM.Development.Name)
}

// WholeLLVM tells whether a bundle has the whole libLLVM because none could be
// linked for it, so that the recorded sizes say nothing about it.
func WholeLLVM(m *bundle.Manifest) bool {
	return slices.ContainsFunc(m.Toolchain.Deviations, func(d string) bool { return strings.HasPrefix(d, wholeLLVM) })
}

// linkInputs key a linked libLLVM.
type linkInputs struct {
	Package   toolchain.Package // the object files
	Major     string
	Toolchain []toolchain.Package
	Image     string `json:",omitempty"`
	Script    string
	Stubs     string
	SONAME    string
	Needed    []string // libraries that the whole one needs
	Wanted    []elfdep.Symbol
	Targets   []string
}

// linkedLLVM is a libLLVM that was made here.
type linkedLLVM struct {
	soname, owner string // the library, and the package of the whole one
	inputs        linkInputs
	result        *stage.Result
}

// linkLLVM puts a libLLVM into the bundle that holds what its files take from
// the image's, and computes the closure again.
func (c *collector) linkLLVM(ctx context.Context, root *rootfs) error {
	i := slices.IndexFunc(c.libs.libs, func(l elfdep.Lib) bool { return llvmSONAME.MatchString(l.SONAME) })
	if i < 0 || c.llvm == nil {
		return nil
	}
	whole := c.libs.libs[i]
	owner, err := root.owner(ctx, whole.InRoot)
	if err != nil {
		return err
	}
	if owner != c.llvm.LLVM.Runtime.Name {
		_, err := fmt.Fprintf(c.recipe.Log, "bundle-%s: %s is of package %s, not of %s: it is taken whole\n", c.variant.Name, whole.InRoot, owner, c.llvm.LLVM.Runtime.Name)
		return err
	}
	if err := c.lockedLLVM(); err != nil {
		return err
	}
	in := linkInputs{
		Package: c.llvm.LLVM.Development, Major: c.llvm.LLVM.Major, Toolchain: c.toolchain.Packages,
		Script: c.llvm.Script, Stubs: c.llvm.Stubs, SONAME: whole.SONAME, Needed: whole.Needed, Targets: c.llvm.Targets,
	}
	if c.recipe.toolchainSpec(c.variant.Set).Image() {
		in.Image = c.toolchain.ID
	}
	if in.Wanted, err = c.takenFrom(whole); err != nil {
		return err
	}
	res, err := c.recipe.linkedLLVM(ctx, c.toolchain, c.llvm.LLVM, in)
	if err != nil {
		return err
	}
	if err := sparse.CopyFile(filepath.Join(res.Dir, whole.SONAME), filepath.Join(c.dir, whole.SONAME), 0o644); err != nil {
		return err
	}
	c.linked = &linkedLLVM{soname: whole.SONAME, owner: owner, inputs: in, result: res}
	c.exclude(whole.SONAME+", what nothing in the bundle calls",
		fmt.Sprintf("linked of the static libraries in %s %s; other targets than %s, Polly and the Z3 solver are not in it",
			in.Package.Name, in.Package.Version, strings.Join(in.Targets, " and ")))
	c.libs, err = c.recipe.resolve(ctx, root, c.dir, c.recipe.toolchainSpec(c.variant.Set).ROCm())
	return err
}

// lockedLLVM notes object files that the lock does not know.
func (c *collector) lockedLLVM() error {
	spec, p := c.recipe.toolchainSpec(c.variant.Set), c.llvm.LLVM.Development
	if c.llvm.LLVM.Locked || spec.Image() {
		return nil // the lock file speaks of the Debian image
	}
	deviation := fmt.Sprintf("%s %s is not in the lock", p.Name, p.Version)
	if spec.Locked {
		return fmt.Errorf("%s (GOROCM_LOCKED=true); accept it with `mage lock`", deviation)
	}
	c.deviations = append(slices.Clip(c.deviations), deviation)
	return nil
}

// takenFrom lists what all files of the closure take from one library of it.
func (c *collector) takenFrom(lib elfdep.Lib) ([]elfdep.Symbol, error) {
	var wanted []elfdep.Symbol
	for _, l := range c.libs.all {
		if !slices.Contains(l.Needed, lib.SONAME) {
			continue
		}
		taken, err := elfdep.TakenFrom(l.Path, lib.Path)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, taken...)
	}
	slices.SortFunc(wanted, func(a, b elfdep.Symbol) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(wanted), nil
}

// linkedLLVM gives the library as a stage of its own.
func (r *Recipe) linkedLLVM(ctx context.Context, t *toolchain.Toolchain, l toolchain.LLVM, in linkInputs) (*stage.Result, error) {
	files, err := linkFiles(in)
	if err != nil {
		return nil, err
	}
	pkg, err := toolchain.Fetch(ctx, r.Engine, r.Cache, r.toolchainSpec(toolchain.HIP), t, in.Package, r.Log)
	var gone *toolchain.NotInArchiveError
	if errors.As(err, &gone) {
		return nil, &LLVMError{LLVM: l, Err: err}
	}
	if err != nil {
		return nil, err
	}
	return r.Cache.Do(ctx, "llvm", in, func(ctx context.Context, dir string) error {
		src, err := os.MkdirTemp(filepath.Dir(dir), "llvm-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(src) // also goes with the stage's unfinished folder
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		if err := os.Link(filepath.Join(pkg.Dir, toolchain.FetchedPackage), filepath.Join(src, "package.deb")); err != nil {
			return err
		}
		log, err := r.Progress.Open("llvm")
		if err != nil {
			return err
		}
		err = r.Engine.Run(ctx, engine.Job{
			Name: "llvm", Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", in.Script, "link", in.Major, in.SONAME}, in.Needed...),
			Env: []string{"PATH=/usr/bin:/bin", "HOME=/build", "LC_ALL=C.UTF-8", "TZ=UTC", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.Lock.Epoch)},
			Dir: "/build", UID: buildUser, GID: buildUser, Volumes: []string{"/src", "/build"},
			In:  []engine.Input{{Dir: "/src", Write: tarFolder(src, r.Lock.Time())}},
			Out: []engine.Output{{Path: "/build/out", Take: intoFolder(dir)}},
			Log: log, Memory: r.Memory,
		})
		var exit *engine.ExitError
		if errors.As(err, &exit) {
			err = &LLVMError{LLVM: l, Err: err}
		}
		return errors.Join(err, log.Close())
	})
}

// linkFiles writes what the link is told: the symbols to keep, under the one
// version that the library gives them, and the targets that stay empty.
func linkFiles(in linkInputs) (map[string]string, error) {
	if len(in.Wanted) == 0 {
		return nil, fmt.Errorf("nothing in the bundle takes a symbol of %s", in.SONAME)
	}
	version := in.Wanted[0].Version
	var wanted, versions, empty strings.Builder
	fmt.Fprintf(&versions, "%s {\nglobal:\n", version)
	for _, s := range in.Wanted {
		if s.Version != version || version == "" {
			return nil, fmt.Errorf("%s gives its symbols the versions %q and %q, and one is expected", in.SONAME, version, s.Version)
		}
		fmt.Fprintln(&wanted, s.Name)
		fmt.Fprintf(&versions, "\t%s;\n", s.Name)
		if m := llvmSetUp.FindStringSubmatch(s.Name); m != nil && !slices.Contains(in.Targets, m[1]) {
			fmt.Fprintf(&empty, "NO_TARGET(%s)\n", s.Name)
		}
	}
	versions.WriteString("local:\n\t*;\n};\n")
	return map[string]string{"wanted": wanted.String(), "versions.map": versions.String(), "targets.inc": empty.String(), "stubs.cpp": in.Stubs}, nil
}

// stage is what the manifest says about it.
func (l *linkedLLVM) stage() bundle.Stage {
	p := l.inputs.Package
	return bundle.Stage{
		Name: l.result.Name, Digest: l.result.Key, Output: l.result.Output,
		Options: []string{
			"file=" + l.soname,
			fmt.Sprintf("package=%s %s %s sha256:%s", p.Name, p.Version, p.Arch, p.SHA256),
			"targets=" + strings.Join(l.inputs.Targets, ";"),
			fmt.Sprintf("symbols=%d", len(l.inputs.Wanted)),
		},
	}
}
