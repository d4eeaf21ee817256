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

// prove checks what every file of a bundle must keep.
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
	// What the host must have counts as the toolchain's release of it has it.
	undefined, err := elfdep.Unresolved(append(libs, c.fromHost...))
	if err != nil {
		return err
	}
	if len(undefined) > 0 {
		errs = append(errs, &elfdep.UnresolvedError{Symbols: undefined})
	}
	for _, name := range names {
		base := filepath.Base(name)
		ours := c.libs.needed[base] != nil && !slices.ContainsFunc(c.libs.libs, func(l elfdep.Lib) bool { return l.SONAME == base })
		h, err := elfdep.Hardening(name)
		if err != nil {
			return err
		}
		if weak := h.Weak(); ours && len(weak) > 0 {
			errs = append(errs, fmt.Errorf("%s is built without %s", base, strings.Join(weak, ", ")))
		}
		for _, p := range h.Runpath {
			if p != "$ORIGIN" {
				errs = append(errs, fmt.Errorf("%s has the run path %q", base, p))
			}
		}
		if !ours {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		paths := []string{"/src", "/build"}
		if c.linked != nil && base == c.linked.soname {
			paths = paths[1:] // compiled elsewhere; LLVM names streams of PDB files /src/…
		}
		leaks, err := elfdep.ScanStrings(f, paths, 3)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		for _, l := range leaks {
			errs = append(errs, fmt.Errorf("%s holds the build path %q", base, l.Text))
		}
	}
	return errors.Join(errs...)
}
