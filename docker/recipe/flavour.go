package recipe

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/hostlib"
)

// libcParts are the parts of the C library that were separate in older releases. A bundle of the
// system flavour contains them in addition to its libc: libraries of the host may need them, and
// the host's own do not match that libc.
var libcParts = []string{
	"libanl.so.1", "libdl.so.2", "libmvec.so.1", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libutil.so.1",
}

// excludeROCm reduces the full closure to the system flavour. It keeps the libraries
// that are not ROCm's, and records what the host must have instead. Only
// reviewed libraries may be left out.
func (c *collector) excludeROCm(ctx context.Context, root *rootfs) error {
	table, err := hostlib.Reviewed()
	if err != nil {
		return err
	}
	full := c.libs
	var left []string
	for _, l := range full.libs {
		if known, ok := table.Lookup(l.SONAME); ok && known.ROCm {
			left = append(left, l.SONAME)
		}
	}
	if len(left) == 0 {
		return fmt.Errorf("the %s variant needs nothing of ROCm", c.variant.Name)
	}
	kept, err := c.closureWithout(ctx, root, left)
	if err != nil {
		return err
	}
	c.host = &bundle.Host{}
	if err := c.recordHostRequirements(kept, left, table); err != nil {
		return err
	}
	if c.host.Provides, err = provided(kept.libs); err != nil {
		return err
	}
	if err := c.recordExcludedLibraries(ctx, root, full, kept, table); err != nil {
		return err
	}
	c.libs = kept
	return nil
}

// closureWithout returns the closure of the compiled files, without the libraries that the host
// provides.
func (c *collector) closureWithout(ctx context.Context, root *rootfs, left []string) (*libraries, error) {
	staged, err := elfFiles(c.dir)
	if err != nil {
		return nil, err
	}
	opts := elfdep.Options{Root: root.dir, Stage: []string{c.dir}, SearchPaths: elfdep.DefaultSearchPaths(), Stop: left}
	roots := append(slices.Clip(staged), "/lib64/"+loaderName)
	for _, name := range libcParts {
		p, err := root.find(ctx, name, opts.SearchPaths)
		if err != nil {
			return nil, fmt.Errorf("the C library's %s: %w", name, err)
		}
		roots = append(roots, p)
	}
	return c.recipe.complete(ctx, root, c.variant, roots, opts)
}

// recordHostRequirements records the libraries of the host that the compiled files need, with the
// symbol versions that they must define. If another library of the image needs one, it is itself a
// part of ROCm that the table lacks.
func (c *collector) recordHostRequirements(kept *libraries, left []string, table *hostlib.Table) error {
	for _, soname := range left {
		known, _ := table.Lookup(soname)
		entry := bundle.HostLibrary{SONAME: soname, Debian: known.Debian, AMD: known.AMD}
		for _, l := range kept.all {
			if !slices.Contains(l.Needed, soname) {
				continue
			}
			if l.InRoot != "" {
				return fmt.Errorf("%s needs %s, which the %s flavour leaves to the host: decide about it in pkg/hostlib/libraries.txt", l.SONAME, soname, bundle.FlavourSystem)
			}
			entry.NeededBy = append(entry.NeededBy, filepath.Base(l.Path))
			for _, v := range l.Versions {
				if v.Library == soname {
					entry.Versions = append(entry.Versions, v.Versions...)
				}
			}
		}
		if len(entry.NeededBy) > 0 {
			slices.Sort(entry.NeededBy)
			slices.Sort(entry.Versions)
			entry.Versions = slices.Compact(entry.Versions)
			c.host.Libraries = append(c.host.Libraries, entry)
		}
	}
	slices.SortFunc(c.host.Libraries, func(a, b bundle.HostLibrary) int { return strings.Compare(a.SONAME, b.SONAME) })
	return nil
}

// provided returns the highest symbol version of each kind that libs define.
func provided(libs []elfdep.Lib) ([]string, error) {
	highest := map[string]string{}
	for _, l := range libs {
		defined, err := elfdep.Defines(l.Path)
		if err != nil {
			return nil, err
		}
		for _, v := range defined {
			kind, _, ok := elfdep.SplitVersion(v)
			if ok && (highest[kind] == "" || elfdep.CompareVersions(v, highest[kind]) > 0) {
				highest[kind] = v
			}
		}
	}
	var out []string
	for _, v := range highest {
		out = append(out, v)
	}
	slices.Sort(out)
	return out, nil
}

// recordExcludedLibraries records in the manifest which libraries were left out, and
// their packages.
// Where the image is Debian's, its own file lists must agree with the table.
func (c *collector) recordExcludedLibraries(ctx context.Context, root *rootfs, full, kept *libraries, table *hostlib.Table) error {
	owners, err := root.owners(ctx)
	if err != nil {
		return err
	}
	var wrong []error
	for _, l := range full.libs {
		if slices.ContainsFunc(kept.libs, func(k elfdep.Lib) bool { return k.SONAME == l.SONAME }) {
			continue
		}
		c.fromHost = append(c.fromHost, l)
		known, ok := table.Lookup(l.SONAME)
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s is left to the host and not in pkg/hostlib/libraries.txt: add it with its packages", l.SONAME))
			continue
		}
		resolved, err := root.resolve(ctx, l.InRoot)
		if err != nil {
			return err
		}
		owner := owners[mergedPath(resolved)]
		if c.recipe.Toolchain.Kind == "debian" && !known.MatchesPackage(owner) {
			wrong = append(wrong, fmt.Errorf("%s is in the package %q of this toolchain, pkg/hostlib/libraries.txt has %q: correct it", l.SONAME, owner, known.Debian))
		}
		why := "needed by ROCm's libraries alone"
		if known.ROCm {
			why = "part of ROCm"
		}
		c.exclude(l.SONAME, why+", taken from the host; "+packagesOf(known))
		if strings.HasPrefix(l.SONAME, "libamdhip64.so.") {
			c.host.ROCm = c.release(owner, l.SONAME)
		}
	}
	c.exclude("rocblas/library", "rocBLAS's kernels are in the host's package of rocBLAS")
	return errors.Join(wrong...)
}

func packagesOf(l hostlib.Library) string {
	switch {
	case l.AMD == "" || l.AMD == l.Debian:
		return "package " + l.Debian
	case l.Debian == "":
		return "package " + l.AMD + " of AMD"
	}
	return "package " + l.Debian + " of Debian and Ubuntu, " + l.AMD + " of AMD"
}

// release returns the ROCm release of the toolchain: the upstream version of
// Debian's HIP package, else the number that HIP's SONAME shares with it.
func (c *collector) release(owner, soname string) string {
	if c.recipe.Toolchain.Kind == "debian" {
		for _, p := range c.toolchain.Packages {
			if p.Name == owner {
				upstream, _, _ := strings.Cut(p.Version, "-")
				upstream, _, _ = strings.Cut(upstream, "+")
				return upstream
			}
		}
	}
	return strings.TrimPrefix(soname, "libamdhip64.so.")
}
