package recipe

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
)

// licenceDirectory has a copyright file for every package whose files are in
// the bundle, and the full texts that those refer to.
const licenceDirectory = "licenses"

// copyLicences copies the texts that the licences of the bundled files require.
func (c *collector) copyLicences(ctx context.Context, root *rootfs) error {
	if err := c.copyUpstreamLicences(); err != nil {
		return err
	}
	packages := map[string]bool{}
	for _, l := range c.libs.libs {
		owner, err := root.owner(ctx, l.InRoot)
		if err != nil {
			return err
		}
		packages[owner] = true
	}
	if c.linked != nil { // of the same source as the whole one
		packages[c.linked.Owner] = true
	}
	for p := range packages {
		file, err := root.fetch(ctx, "/usr/share/doc/"+p+"/copyright")
		if err != nil {
			return fmt.Errorf("copyright of package %s: %w", p, err)
		}
		dir := filepath.Join(c.dir, licenceDirectory, p)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := sparse.CopyFile(file, filepath.Join(dir, "copyright"), 0o644); err != nil {
			return err
		}
	}
	err := root.copyDirectory(ctx, "/usr/share/common-licenses", filepath.Join(c.dir, licenceDirectory, "common"), func(string) bool { return true })
	if errors.Is(err, engine.ErrNotExist) {
		return nil
	}
	return err
}

// copyUpstreamLicences copies llama.cpp's own licence texts.
func (c *collector) copyUpstreamLicences() error {
	src, ok, err := c.recipe.Cache.Lookup("source", map[string]string{"tree": c.recipe.Lock.Tree})
	if err != nil || !ok {
		return fmt.Errorf("the source stage was removed: %w", errors.Join(err, os.ErrNotExist))
	}
	to := filepath.Join(c.dir, licenceDirectory, "llama.cpp")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := sparse.CopyFile(filepath.Join(src.Dir, "LICENSE"), filepath.Join(to, "LICENSE"), 0o644); err != nil {
		return err
	}
	more, err := filepath.Glob(filepath.Join(src.Dir, "licenses", "*"))
	if err != nil {
		return err
	}
	slices.Sort(more)
	for _, f := range more {
		if err := sparse.CopyFile(f, filepath.Join(to, filepath.Base(f)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// owner returns the package that a library of the image belongs to.
func (r *rootfs) owner(ctx context.Context, inRoot string) (string, error) {
	resolved, err := r.resolve(ctx, inRoot)
	if err != nil {
		return "", err
	}
	if r.owned == nil {
		if r.owned, err = r.owners(ctx); err != nil {
			return "", err
		}
	}
	owner, ok := r.owned[mergedPath(resolved)]
	if !ok {
		return "", fmt.Errorf("no package of the image owns %s, so its licence is unknown", resolved)
	}
	return owner, nil
}

// owners maps the files of the images to the packages that own them, from
// dpkg's file lists.
func (r *rootfs) owners(ctx context.Context) (map[string]string, error) {
	owners := map[string]string{}
	read := func(h *tar.Header, body io.Reader) error {
		name, ok := strings.CutSuffix(path.Base(h.Name), ".list")
		if !ok || h.Typeflag != tar.TypeReg {
			return nil
		}
		pkg, _, _ := strings.Cut(name, ":")
		sc := bufio.NewScanner(body)
		for sc.Scan() {
			if strings.Contains(sc.Text(), ".so") {
				owners[mergedPath(sc.Text())] = pkg
			}
		}
		return sc.Err()
	}
	err := r.files.each(func(image engine.Files) error { return image.Walk(ctx, "/var/lib/dpkg/info", read) })
	if err != nil {
		return nil, fmt.Errorf("read the image's file lists: %w", err)
	}
	return owners, nil
}

// mergedPath returns a path as it is on merged-/usr systems.
func mergedPath(p string) string {
	for _, top := range []string{"/lib/", "/lib64/"} {
		if strings.HasPrefix(p, top) {
			return "/usr" + p
		}
	}
	return p
}
