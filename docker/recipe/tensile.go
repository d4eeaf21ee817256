package recipe

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// tensileFolder is where rocBLAS looks for its kernels, beside itself.
const tensileFolder = "rocblas/library"

// takeTensile copies the matrix kernels of our targets. Files for complex and
// double precision numbers stay out: the module imports no function that could
// ask for them, which unusedTypes proves.
func (c *collector) takeTensile(ctx context.Context, root *rootfs) error {
	from, err := c.tensileSource(ctx, root)
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
	if err := unusedTypes(filepath.Join(c.dir, "libggml-hip.so")); err != nil {
		return err
	}
	sel, err := elfdep.SelectTensile(names, c.targets, func(f elfdep.TensileFile) bool { return f.Complex() || f.Double() })
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, f := range sel.Keep {
		keep[f.Name] = true
	}
	c.exclude(tensileFolder+" for other targets, and for complex and double precision numbers",
		"the bundle's targets do not need them, and libggml-hip.so imports no function of hipBLAS or rocBLAS that uses them")
	return root.folder(ctx, from, filepath.Join(c.dir, filepath.FromSlash(tensileFolder)), func(name string) bool { return keep[name] })
}

// tensileSource finds the kernels' folder beside the image's rocBLAS.
func (c *collector) tensileSource(ctx context.Context, root *rootfs) (string, error) {
	for _, l := range c.libs.libs {
		if ok, err := path.Match("librocblas.so.*", l.SONAME); err != nil || !ok {
			continue
		}
		p := path.Join(path.Dir(l.InRoot), tensileFolder)
		e, err := root.files.Stat(ctx, p)
		if errors.Is(err, engine.ErrNotExist) || (err == nil && !e.Dir) {
			return "", fmt.Errorf("the image has rocBLAS at %s but no kernels in %s", l.InRoot, p)
		}
		return p, err
	}
	return "", errors.New("the hip module does not need rocBLAS: the recipe does not know this version of ggml")
}

// unusedTypes proves from a module's imports that it calls no matrix function
// of double precision or complex numbers: those are spelt with D, C or Z
// before the operation, as hipblasDgemm.
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

// isManagement tells functions whose names begin with Create or Destroy from
// those that calculate.
func isManagement(name string) bool {
	switch name {
	case "hipblasCreate", "hipblasDestroy", "rocblas_create_handle", "rocblas_destroy_handle":
		return true
	}
	return false
}
