package recipe

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/tensile"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

// copyTensile copies the matrix kernels of our targets to the directory next to rocBLAS where it
// searches first. It omits files for complex, double-precision and integer types, since nothing in
// the bundle can request them.
func (c *collector) copyTensile(ctx context.Context, root *rootfs) error {
	from, directory, err := c.tensileSource(ctx, root)
	if err != nil {
		return err
	}
	var names []string
	err = root.files.Walk(ctx, from, func(h *tar.Header, _ io.Reader) error {
		if h.Typeflag == tar.TypeReg {
			names = append(names, path.Base(h.Name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.proveUnusedTypes(); err != nil {
		return err
	}
	sel, err := tensile.Select(names, c.targets, isUnusedTensile)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, f := range sel.Keep {
		keep[f.Name] = true
	}
	c.exclude(directory+" for other targets, and for complex, double precision and integer numbers",
		"libggml-hip.so calls no function of hipBLAS that uses them, and its source names no such type")
	to := filepath.Join(c.dir, filepath.FromSlash(directory))
	if err := root.copyDirectory(ctx, from, to, func(name string) bool { return keep[name] }); err != nil {
		return err
	}
	objects, err := sel.Code(to)
	if err != nil {
		return err
	}
	// The kernels of a target are in many files; the target's index represents them in the
	// manifest.
	for _, o := range objects {
		i := slices.IndexFunc(sel.Keep, func(f tensile.File) bool {
			return f.Kind == tensile.Index && f.Target.Target == o.Target
		})
		if i < 0 {
			return fmt.Errorf("%s has kernels for %s and no index of them", from, o.Target)
		}
		c.addObjects(path.Join(directory, sel.Keep[i].Name), []offload.CodeObjects{o})
	}
	return nil
}

// isUnusedTensile reports whether nothing in the bundle can request a file.
func isUnusedTensile(f tensile.File) bool { return f.Complex() || f.Double() || f.Integer() }

// tensileSource returns the kernels' directory in the image, and its path relative to rocBLAS.
func (c *collector) tensileSource(ctx context.Context, root *rootfs) (from, directory string, err error) {
	for _, l := range c.libs.libs {
		if !matches(rocBLAS, l.SONAME) {
			continue
		}
		resolved, err := root.resolve(ctx, l.InRoot)
		if err != nil {
			return "", "", err
		}
		directories, err := tensile.Directories(l.Path)
		if err != nil {
			return "", "", err
		}
		for _, f := range directories {
			if strings.HasPrefix(f, "..") {
				continue
			}
			p := path.Join(path.Dir(resolved), f)
			if e, err := root.files.Stat(ctx, p); err == nil && e.Dir {
				return p, f, nil
			} else if err != nil && !errors.Is(err, engine.ErrNotExist) {
				return "", "", err
			}
		}
		return "", "", fmt.Errorf("the image has rocBLAS at %s, but no kernels in any of %s next to it", resolved, strings.Join(directories, ", "))
	}
	return "", "", errors.New("the hip module does not need rocBLAS: this version of ggml is not supported by the recipe")
}

// excludedTypes are the names of data and compute types of integers, double precision and complex
// numbers in hipBLAS, rocBLAS and HIP (library_types.h of HIP, rocblas-types.h, hipblas.h), and
// CUDA's names, which ggml uses for HIP's.
var excludedTypes = regexp.MustCompile(`\b(?:(?:CUDA|HIP|HIPBLAS)_(?:R_(?:\d+[IU]|64F)|C_\d+[A-Z]+)|(?:CUBLAS|HIPBLAS)_COMPUTE_(?:32I|64F)\w*|rocblas_datatype_(?:[iu]\d+_[rc]|f64_r|\w+_c))\b`)

// proveUnusedTypes proves that no matrix function for complex, double-precision or integer types
// can be called: the module imports no function that is specific to them, and its source names none
// of these types, so that functions with a type as an argument cannot get one.
func (c *collector) proveUnusedTypes() error {
	if err := unusedTypes(filepath.Join(c.dir, hipModule)); err != nil {
		return err
	}
	src, err := c.recipe.cachedSource()
	if err != nil {
		return err
	}
	return filepath.WalkDir(filepath.Join(src.Dir, "ggml", "src", "ggml-cuda"), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(p) //nolint:gosec // the verified source
		if err != nil {
			return err
		}
		if found := excludedTypes.Find(text); found != nil {
			return fmt.Errorf("%s names the type %s: its kernels must be shipped; change the recipe's choice of Tensile files", e.Name(), found)
		}
		return nil
	})
}

// unusedTypes proves from a module's imports that it calls no matrix function for double-precision or
// complex numbers: their names have D, C or Z before the operation, as in hipblasDgemm.
func unusedTypes(module string) error {
	for _, prefix := range []string{"hipblas", "rocblas_"} {
		names, err := elfdep.Imports(module, prefix)
		if err != nil {
			return err
		}
		for _, n := range names {
			rest := n[len(prefix):]
			if rest == "" {
				continue
			}
			switch rest[0] {
			case 'D', 'C', 'Z', 'd', 'c', 'z':
				if !isManagement(n) {
					return fmt.Errorf("%s calls %s: its kernels must be shipped; change the recipe's choice of Tensile files", filepath.Base(module), n)
				}
			}
		}
	}
	return nil
}

// isManagement reports whether a function creates or destroys a handle: its name looks like one with
// a data type.
func isManagement(name string) bool {
	switch name {
	case "hipblasCreate", "hipblasDestroy", "rocblas_create_handle", "rocblas_destroy_handle":
		return true
	}
	return false
}
