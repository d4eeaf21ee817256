package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/docker/llvm"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/hostlib"
)

// collectRevision is part of the key of bundles. Increment it when a change of this code
// changes the contents of a bundle, or what is checked in it.
const collectRevision = 7

// serverName is the program of a bundle.
const serverName = "llama-server"

// unshipped lists results of the compile that bundles do not contain.
var unshipped = []string{"llama-fit-params", "libllama-fit-params-impl.so"}

// collectInputs key a bundle: they determine its files and the contents of its manifest.
type collectInputs struct {
	Variant    string
	Flavour    string `json:",omitempty"` // empty: hermetic
	Targets    []gfx.Target
	Stages     map[string]string // component: digest of the key of its compile
	Compiled   map[string]string // component: digest of its output
	Toolchain  string            // its name
	Packages   []toolchain.Package
	Deviations []string `json:",omitempty"` // of the packages from the lock
	Image      string   `json:",omitempty"`
	Lock       Lock
	Revision   int
	Opened     string     // digest of the decisions about libraries that are opened
	Modules    []module   `json:",omitempty"` // the decisions of the backends
	HostTable  string     `json:",omitempty"` // digest of the table of the host's libraries
	LLVM       *llvm.Plan `json:",omitempty"`
	Whole      string     `json:",omitempty"` // why libLLVM is whole
}

// Bundle returns the bundle directory of a variant, with its manifest.
func (r *Recipe) Bundle(ctx context.Context, v Variant) (*stage.Result, error) {
	v = r.available(v)
	compiled, err := r.Compile(ctx, v)
	if err != nil {
		return nil, err
	}
	images, err := r.images(ctx, v)
	if err != nil {
		return nil, err
	}
	in, err := r.collectInputs(v, images, compiled)
	if err != nil {
		return nil, err
	}
	res, err := r.collect(ctx, v, images, compiled, in)
	var failed *llvm.Error
	if errors.As(err, &failed) && failed.AllowsWhole(r.Toolchain.Locked) {
		if _, err := fmt.Fprintf(r.Log, "bundle-%s: WARNING: %v\nbundle-%s: WARNING: %s\n", v.Label(), failed, v.Label(), failed.Deviation()); err != nil {
			return nil, err
		}
		in.LLVM, in.Whole = nil, failed.Deviation()
		return r.collect(ctx, v, images, compiled, in)
	}
	return res, err
}

// collectInputs returns what keys a variant's bundle.
func (r *Recipe) collectInputs(v Variant, images []*toolchain.Toolchain, compiled map[string]*stage.Result) (in collectInputs, err error) {
	spec, t := r.toolchainSpec(v.Set), images[0]
	packages, deviations := toolchain.Merge(images)
	in = collectInputs{
		Variant: v.Name, Flavour: v.Flavour, Stages: map[string]string{}, Compiled: map[string]string{},
		Toolchain: spec.Name(), Packages: packages, Deviations: deviations,
		Lock: r.Lock, Revision: collectRevision, Opened: elfdep.ReviewedDigest(), Modules: moduleDecisions(v),
	}
	if v.hasTargets() {
		in.Targets = r.sortedTargets()
	}
	if spec.HasBaseImage() {
		in.Image = t.ID
	}
	for name, res := range compiled {
		in.Stages[name], in.Compiled[name] = res.Key, res.Output
	}
	if v.Flavour == bundle.FlavourSystem {
		in.HostTable = hostlib.ReviewedDigest()
		return in, nil
	}
	in.LLVM, err = llvm.NewPlan(t.Packages)
	return in, err
}

func (r *Recipe) collect(ctx context.Context, v Variant, images []*toolchain.Toolchain, compiled map[string]*stage.Result, in collectInputs) (*stage.Result, error) {
	return r.Cache.Do(ctx, "bundle-"+v.Label(), in, func(ctx context.Context, dir string) error {
		for _, t := range images {
			if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(t.Set), t, r.Log); err != nil {
				return err
			}
		}
		c := &collector{recipe: r, variant: v, toolchain: images[0], images: images, packages: in.Packages, targets: in.Targets, dir: dir, image: in.Image, compiled: compiled, llvm: in.LLVM, deviations: in.Deviations}
		if in.Whole != "" {
			c.deviations = append(slices.Clip(c.deviations), in.Whole)
		}
		return c.run(ctx)
	})
}

func (r *Recipe) sortedTargets() []gfx.Target {
	ts := slices.Clone(r.Targets)
	slices.SortFunc(ts, gfx.Compare)
	return ts
}

// collector fills one bundle directory.
type collector struct {
	recipe    *Recipe
	variant   Variant
	toolchain *toolchain.Toolchain // of the variant's set
	// images are toolchain, and those of the other modules. Libraries that the first does not
	// contain come from the next.
	images   []*toolchain.Toolchain
	packages []toolchain.Package // of all images
	targets  []gfx.Target
	compiled map[string]*stage.Result
	dir      string
	image    string     // the digest of the toolchain's image, where it was made from a given one
	llvm     *llvm.Plan // nil: libLLVM, if there is one, is bundled whole
	// deviations are those of the toolchain, and those of the bundle itself from the lock
	// files.
	deviations []string

	linked   *llvm.Library // nil: none was linked
	libs     *libraries
	excluded []bundle.Excluded
	objects  []bundle.CodeObjects
	// For the system flavour only: the requirements on the host, and the toolchain's
	// libraries that represent the host's in checks.
	host     *bundle.Host
	fromHost []elfdep.Lib
}

func (c *collector) run(ctx context.Context) (err error) {
	if err := c.copyCompiled(); err != nil {
		return err
	}
	files, err := openImages(ctx, c.recipe.Engine, c.images)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	tmp, err := os.MkdirTemp(filepath.Dir(c.dir), "root-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	root, err := newRootfs(ctx, files, tmp)
	if err != nil {
		return err
	}
	rocm := c.recipe.toolchainSpec(c.variant.Set).ROCm()
	if c.libs, err = c.recipe.resolve(ctx, root, c.variant, c.dir, rocm); err != nil {
		return err
	}
	system := c.variant.Flavour == bundle.FlavourSystem
	if system {
		err = c.excludeROCm(ctx, root)
	} else {
		err = c.linkLLVM(ctx, root)
	}
	if err != nil {
		return err
	}
	if err := c.copyLibraries(); err != nil {
		return err
	}
	if err := c.renameLLVM(); err != nil {
		return err
	}
	if len(c.targets) > 0 {
		if !system {
			if err := c.copyTensile(ctx, root); err != nil {
				return err
			}
		}
		if err := c.slim(); err != nil {
			return err
		}
	}
	if err := c.copyLicences(ctx, root); err != nil {
		return err
	}
	if err := c.prove(); err != nil {
		return err
	}
	if err := c.proveLLVM(ctx); err != nil {
		return err
	}
	return c.writeManifest()
}

// copyCompiled copies the results of the components. A file that two components produced must be
// identical, otherwise their modules would not match.
func (c *collector) copyCompiled() error {
	for _, name := range c.variant.Components {
		from := c.compiled[name].Dir
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if slices.Contains(unshipped, e.Name()) {
				continue
			}
			to := filepath.Join(c.dir, e.Name())
			if exists(to) {
				a, errA := stage.FileDigest(filepath.Join(from, e.Name()))
				b, errB := stage.FileDigest(to)
				if err := errors.Join(errA, errB); err != nil {
					return err
				}
				if a != b {
					return fmt.Errorf("component %s produced a different %s than the components before it: %s and %s", name, e.Name(), a, b)
				}
				continue
			}
			mode := os.FileMode(0o644) // libraries are loaded, not executed
			if e.Name() == serverName {
				mode = 0o755
			}
			if err := sparse.CopyFile(filepath.Join(from, e.Name()), to, mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyLibraries moves the closure's libraries to the bundle, each under its SONAME.
func (c *collector) copyLibraries() error {
	for _, l := range c.libs.libs {
		mode := os.FileMode(0o644)
		if l.SONAME == loaderName {
			mode = 0o755
		}
		if err := sparse.CopyFile(l.Path, filepath.Join(c.dir, l.SONAME), mode); err != nil {
			return fmt.Errorf("copy %s: %w", l.InRoot, err)
		}
		if l.SONAME == loaderName {
			continue
		}
		// The loader gets the libraries' directory as an argument; a path of
		// the build machine would be searched first.
		if _, err := elfdep.RemoveRunpath(filepath.Join(c.dir, l.SONAME)); err != nil {
			return err
		}
	}
	for _, v := range c.libs.excluded {
		c.exclude(v.Candidate.Name+" (opened by "+v.Candidate.In+")", v.Reason)
	}
	return nil
}

func (c *collector) exclude(name, reason string) {
	e := bundle.Excluded{Name: name, Reason: reason}
	if !slices.ContainsFunc(c.excluded, func(o bundle.Excluded) bool { return o.Name == name }) {
		c.excluded = append(c.excluded, e)
	}
}
