package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// verifyPack checks the packed bundle at path.
func verifyPack(ctx context.Context, out io.Writer, path string, f *bundle.PackFile) error {
	err := f.Verify(ctx)
	if err := errors.Join(err, f.Close()); err != nil {
		return explainVerify(path, err)
	}
	printWhole(out, f.Manifest())
	return nil
}

// verifyUnpacked checks a bundle's folder for whatever targets it is.
func verifyUnpacked(ctx context.Context, out io.Writer, dir string) error {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	targets, err := bundle.VerifyInstalled(ctx, dir, m)
	if err != nil {
		return explainVerify(dir, err)
	}
	printRight(out, m, targets)
	return nil
}

// verifyInstalled checks the bundle that a package has put into dir, which must
// be whole.
func verifyInstalled(ctx context.Context, out io.Writer, dir string) error {
	m, err := bundle.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("verify: no bundle is installed in %s: install the package go-rocm-llama-hip or go-rocm-llama-cpu, or name another bundle", dir)
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	if err := bundle.Verify(ctx, dir, m); err != nil {
		return explainVerify(dir, err)
	}
	printWhole(out, m)
	return nil
}

// verifyEmbedded checks every variant that is built in; fsys is payload.Embedded.
func verifyEmbedded(ctx context.Context, out io.Writer, fsys fs.FS) error {
	variants, err := payload.VariantsIn(fsys)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if len(variants) == 0 {
		return errors.New("verify: no bundle is built into this program: name a bundle's FILE or DIR, or the one that the package installed by --installed")
	}
	for _, v := range variants {
		r, err := payload.OpenIn(fsys, v)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if err := r.Verify(ctx); err != nil {
			return explainVerify("the built-in "+v+" bundle", err)
		}
		printWhole(out, r.Manifest())
	}
	return nil
}

// explainVerify names the bundle, lists all that differs, and adds what to do
// about a damaged one.
func explainVerify(what string, err error) error {
	const remedy = "fetch, install or build it again"
	var folder *bundle.VerifyError
	switch {
	case errors.As(err, &folder):
		return fmt.Errorf("verify %s\n%s", folder.Details(), remedy)
	case errors.Is(err, bundle.ErrContent):
		return fmt.Errorf("verify %s: %w; %s", what, err, remedy)
	}
	return fmt.Errorf("verify %s: %w", what, err)
}

func printWhole(out io.Writer, m *bundle.Manifest) { printRight(out, m, m.Targets) }

// printRight says what was found right: the whole bundle, or what the targets
// that it was unpacked for need.
func printRight(out io.Writer, m *bundle.Manifest, targets []gfx.Target) {
	lacks := slices.DeleteFunc(slices.Clone(m.Targets), func(t gfx.Target) bool { return slices.Contains(targets, t) })
	what := "is right for " + gfx.Join(targets, ", ") + ", without " + gfx.Join(lacks, ", ")
	switch {
	case len(lacks) == 0:
		what = "is whole"
	case len(targets) == 0:
		what = "is right without what single GPU targets need"
	}
	var files int
	var bytes int64
	want := bundle.ForTargets(append([]gfx.Target{}, targets...)) // nil would be all
	for _, f := range m.Files {
		if want(f) {
			files++
			bytes += f.Size
		}
	}
	_, _ = fmt.Fprintf(out, "%s %s %s: %d files, %s, digest %s\n", m.Name, m.Version, what, files, size(bytes), m.Digest())
}
