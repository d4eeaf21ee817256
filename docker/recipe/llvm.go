package recipe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/llvm"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// llvmBuilder returns the builder of libLLVM in the image of the collector's
// toolchain.
func (c *collector) llvmBuilder() *llvm.Builder {
	r := c.recipe
	b := &llvm.Builder{
		Engine: r.Engine, Cache: r.Cache, Spec: r.toolchainSpec(c.variant.Set), Toolchain: c.toolchain,
		Time: r.Lock.Time(), Memory: r.Memory, Log: r.Log,
	}
	if r.Progress != nil {
		b.OpenLog = r.Progress.Open
	}
	return b
}

// linkLLVM replaces the image's libLLVM by one with only what the bundle's files
// import from it, and computes the closure again.
func (c *collector) linkLLVM(ctx context.Context, root *rootfs) error {
	i := slices.IndexFunc(c.libs.libs, func(l elfdep.Lib) bool { return llvm.IsLibrary(l.SONAME) })
	if i < 0 || c.llvm == nil {
		return nil
	}
	whole := c.libs.libs[i]
	owner, err := root.owner(ctx, whole.InRoot)
	if err != nil {
		return err
	}
	if owner != c.llvm.LLVM.Runtime.Name {
		_, err := fmt.Fprintf(c.recipe.Log, "bundle-%s: %s is of package %s, not of %s: the whole library is bundled\n", c.variant.Name, whole.InRoot, owner, c.llvm.LLVM.Runtime.Name)
		return err
	}
	if err := c.checkLLVMLock(); err != nil {
		return err
	}
	wanted, err := c.importsFrom(whole)
	if err != nil {
		return err
	}
	b := c.llvmBuilder()
	in := b.Inputs(c.llvm, whole, wanted)
	res, err := b.Link(ctx, c.llvm.LLVM, in)
	if err != nil {
		return err
	}
	c.linked = &llvm.Library{SONAME: whole.SONAME, Owner: owner, Inputs: in, Result: res}
	if err := sparse.CopyFile(c.linked.File(), filepath.Join(c.dir, whole.SONAME), 0o644); err != nil {
		return err
	}
	c.exclude(whole.SONAME+", what nothing in the bundle calls",
		fmt.Sprintf("linked of the static libraries in %s %s; other targets than %s, Polly and the Z3 solver are not in it",
			in.Package.Name, in.Package.Version, strings.Join(in.Targets, " and ")))
	c.libs, err = c.recipe.resolve(ctx, root, c.variant, c.dir, c.recipe.toolchainSpec(c.variant.Set).ROCm())
	return err
}

// bundledName returns the SONAME of the linked libLLVM in the bundle. A Vulkan driver of the host may
// need the whole libLLVM, and would get the bundle's if that had the same name.
func bundledName(soname string) string {
	name := strings.Replace(soname, "libLLVM.so.", "libLLVMr.so.", 1)
	if i := strings.LastIndexByte(name, '.'); len(name) > len(soname) {
		name = name[:i] // the minor version: a name is replaced in place
	}
	return name
}

// renameLLVM gives the linked libLLVM its name in the bundle, in every file that needs it.
func (c *collector) renameLLVM() error {
	if c.linked == nil || len(backendsOf(c.variant)) < 2 {
		return nil // no other module that could need the whole one
	}
	from := c.linked.SONAME
	to := bundledName(from)
	names, err := elfFiles(c.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := elfdep.RenameLibrary(name, from, to); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(c.dir, from), filepath.Join(c.dir, to)); err != nil {
		return err
	}
	for file, needed := range c.libs.needed {
		if i := slices.Index(needed, from); i >= 0 {
			needed = slices.Clone(needed)
			needed[i] = to
			c.libs.needed[file] = needed
		}
	}
	c.libs.needed[to] = c.libs.needed[from]
	delete(c.libs.needed, from)
	c.linked.SONAME = to
	return nil
}

// checkLLVMLock records static libraries that are not in the lock as a deviation;
// a locked build rejects them.
func (c *collector) checkLLVMLock() error {
	spec, p := c.recipe.toolchainSpec(c.variant.Set), c.llvm.LLVM.Development
	if c.llvm.LLVM.Locked || spec.HasBaseImage() {
		return nil // the lock file is about the Debian image
	}
	deviation := fmt.Sprintf("%s %s is not in the lock", p.Name, p.Version)
	if spec.Locked {
		return fmt.Errorf("%s (GOROCM_LOCKED=true); accept it with `mage lock`", deviation)
	}
	c.deviations = append(slices.Clip(c.deviations), deviation)
	return nil
}

// importsFrom lists what all files of the closure import from one library of it.
func (c *collector) importsFrom(lib elfdep.Lib) ([]elfdep.Symbol, error) {
	var wanted []elfdep.Symbol
	for _, l := range c.libs.all {
		if !slices.Contains(l.Needed, lib.SONAME) {
			continue
		}
		imports, err := elfdep.ImportsFrom(l.Path, lib.Path)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, imports...)
	}
	slices.SortFunc(wanted, func(a, b elfdep.Symbol) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(wanted), nil
}

// proveLLVM proves that the linked libLLVM works as the whole one does.
func (c *collector) proveLLVM(ctx context.Context) error {
	if c.linked == nil {
		return nil
	}
	s := &llvm.Subject{
		Dir: c.dir, SONAME: c.linked.SONAME, Loader: loaderName, Module: hipModule,
		Needed: c.libs.needed, Targets: c.targets,
		Log: engine.PrefixLines(c.recipe.Log, "bundle-"+c.variant.Name+": "),
	}
	for _, l := range c.libs.all {
		s.Libraries = append(s.Libraries, l.SONAME)
	}
	return c.llvmBuilder().Prove(ctx, s)
}
