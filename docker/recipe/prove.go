package recipe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// unfortified lists our files, as patterns of path.Match, in which the compiler finds no call to
// fortify.
var unfortified = []string{
	// Calls only memcpy, memmove, memset and readlink, each with memory whose size the
	// compiler has proven or cannot determine.
	"libggml.so.*",
}

// prove checks the properties that every file of a bundle must have.
func (c *collector) prove() error {
	names, err := elfFiles(c.dir)
	if err != nil {
		return err
	}
	var errs []error
	var libs []elfdep.Lib
	for _, name := range names {
		libs = append(libs, elfdep.Lib{SONAME: filepath.Base(name), Path: name})
	}
	// The toolchain's release represents the host's libraries.
	undefined, err := elfdep.Unresolved(append(libs, c.fromHost...))
	if err != nil {
		return err
	}
	if len(undefined) > 0 {
		errs = append(errs, &elfdep.UnresolvedError{Symbols: undefined})
	}
	for _, name := range names {
		h, err := elfdep.Hardening(name)
		if err != nil {
			return err
		}
		for _, p := range h.Runpath {
			if p != "$ORIGIN" {
				errs = append(errs, fmt.Errorf("%s has the run path %q", filepath.Base(name), p))
			}
		}
		if c.ours(filepath.Base(name)) {
			errs = append(errs, c.proveBuilt(name, h))
		}
	}
	return errors.Join(errs...)
}

// ours reports whether a file was compiled or linked by this build, and not copied from the image.
func (c *collector) ours(base string) bool {
	return !slices.ContainsFunc(c.libs.libs, func(l elfdep.Lib) bool { return l.SONAME == base })
}

// proveBuilt checks how a file of this build was built.
func (c *collector) proveBuilt(name string, h elfdep.Protections) error {
	base := filepath.Base(name)
	weak := h.Weak()
	if !h.StackProtector {
		weak = append(weak, "no stack protector")
	}
	if len(h.Fortify) == 0 && !slices.ContainsFunc(unfortified, func(p string) bool { return matches(p, base) }) {
		weak = append(weak, "no fortified function")
	}
	var errs []error
	if len(weak) > 0 {
		errs = append(errs, fmt.Errorf("%s: %s", base, strings.Join(weak, ", ")))
	}
	debug, err := elfdep.DebugSections(name)
	if err != nil {
		return err
	}
	if len(debug) > 0 {
		errs = append(errs, fmt.Errorf("%s is not stripped: it has %s", base, strings.Join(debug, ", ")))
	}
	paths := []string{"/src", "/build"}
	if c.linked != nil && base == c.linked.SONAME {
		paths = paths[1:] // compiled elsewhere; LLVM names streams of PDB files /src/…
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	leaks, err := elfdep.ScanStrings(f, paths, 3)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, l := range leaks {
		errs = append(errs, fmt.Errorf("%s contains the build path %q", base, l.Text))
	}
	return errors.Join(errs...)
}
