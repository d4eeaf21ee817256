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
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
)

// rootfs contains the files of images that were requested so far, in a local directory. A
// toolchain image has gigabytes; a bundle needs a few dozen files of it.
type rootfs struct {
	files imageFiles
	dir   string
	owned map[string]string // libraries of the image, and their packages
}

// newRootfs starts with the top directories that are links in merged-/usr systems.
func newRootfs(ctx context.Context, files imageFiles, dir string) (*rootfs, error) {
	r := &rootfs{files: files, dir: dir}
	for _, top := range []string{"lib", "lib64", "bin", "sbin"} {
		e, err := files.Stat(ctx, "/"+top)
		if errors.Is(err, engine.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.LinkTarget != "" {
			target := strings.TrimPrefix(e.LinkTarget, "/")
			if err := errors.Join(os.MkdirAll(filepath.Join(dir, target), 0o750), os.Symlink(target, filepath.Join(dir, top))); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// fetch copies a file of the image, links followed, to its path below dir.
// The error is engine.ErrNotExist when the image has none.
func (r *rootfs) fetch(ctx context.Context, p string) (string, error) {
	local := filepath.Join(r.dir, filepath.FromSlash(p))
	if _, err := os.Lstat(local); err == nil {
		return local, nil
	}
	resolved, err := r.resolve(ctx, p)
	if err != nil {
		return "", err
	}
	if resolved != p {
		// One copy under the requested name; links between libraries have no meaning in a
		// bundle.
		if target := filepath.Join(r.dir, filepath.FromSlash(resolved)); exists(target) {
			return local, r.link(local, target)
		}
	}
	if err := os.MkdirAll(filepath.Dir(local), 0o750); err != nil {
		return "", err
	}
	return local, r.files.Walk(ctx, resolved, func(h *tar.Header, body io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%s is not a regular file", resolved)
		}
		return sparse.WriteFile(local, body, fs.FileMode(h.Mode&0o777))
	})
}

func (r *rootfs) link(local, target string) error {
	if err := os.MkdirAll(filepath.Dir(local), 0o750); err != nil {
		return err
	}
	return os.Link(target, local)
}

// resolve follows the links of a file, inside the image.
func (r *rootfs) resolve(ctx context.Context, p string) (string, error) {
	for range 16 {
		e, err := r.files.Stat(ctx, p)
		if err != nil {
			return "", err
		}
		if e.LinkTarget == "" {
			if e.Dir {
				return "", fmt.Errorf("%s is a directory", p)
			}
			return p, nil
		}
		if path.IsAbs(e.LinkTarget) {
			p = path.Clean(e.LinkTarget)
		} else {
			p = path.Join(path.Dir(p), e.LinkTarget)
		}
	}
	return "", fmt.Errorf("%s: too many links", p)
}

// copyDirectory copies the regular files of a directory that match want.
func (r *rootfs) copyDirectory(ctx context.Context, p, to string, want func(name string) bool) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return r.files.Walk(ctx, p, func(h *tar.Header, body io.Reader) error {
		name := path.Base(h.Name)
		if h.Typeflag != tar.TypeReg || !want(name) {
			return nil
		}
		return engine.ExtractFile(filepath.Join(to, name), body, 0o644)
	})
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
