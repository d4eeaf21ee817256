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

// verifyPack checks the packed bundle at path and closes f.
func verifyPack(ctx context.Context, out io.Writer, path string, f *bundle.PackFile) error {
	err := f.Verify(ctx)
	if err := errors.Join(err, f.Close()); err != nil {
		return describeVerifyError(path, err)
	}
	printComplete(out, f.Manifest())
	return nil
}

// verifyUnpacked checks a bundle's directory, for the targets that it was
// unpacked for.
func verifyUnpacked(ctx context.Context, out io.Writer, dir string) error {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	targets, err := bundle.VerifyInstalled(ctx, dir, m)
	if err != nil {
		return describeVerifyError(dir, err)
	}
	printVerified(out, m, targets)
	return nil
}

// verifyInstalled checks the bundle that a package installed in dir. It must be
// complete.
func verifyInstalled(ctx context.Context, out io.Writer, dir string) error {
	m, err := bundle.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("verify: no bundle is installed in %s: install the package go-rocm-llama-hip or go-rocm-llama-cpu, or name another bundle", dir)
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	if err := bundle.Verify(ctx, dir, m); err != nil {
		return describeVerifyError(dir, err)
	}
	printComplete(out, m)
	return nil
}

// verifyEmbedded checks every embedded variant. fsys is payload.Embedded().
func verifyEmbedded(ctx context.Context, out io.Writer, fsys fs.FS) error {
	variants, err := payload.VariantsIn(fsys)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if len(variants) == 0 {
		return errors.New("verify: no bundle is embedded in this program: name a bundle's FILE or DIR, or the installed bundle with --installed")
	}
	for _, v := range variants {
		r, err := payload.OpenIn(fsys, v)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if err := r.Verify(ctx); err != nil {
			return describeVerifyError("the embedded "+v+" bundle", err)
		}
		printComplete(out, r.Manifest())
	}
	return nil
}

// describeVerifyError names the bundle, lists all differences, and adds the
// remedy for a damaged bundle.
func describeVerifyError(subject string, err error) error {
	const remedy = "fetch, install or build it again"
	var differences *bundle.VerifyError
	switch {
	case errors.As(err, &differences):
		return fmt.Errorf("verify %s\n%s", differences.Details(), remedy)
	case errors.Is(err, bundle.ErrContent):
		return fmt.Errorf("verify %s: %w; %s", subject, err, remedy)
	}
	return fmt.Errorf("verify %s: %w", subject, err)
}

func printComplete(out io.Writer, m *bundle.Manifest) { printVerified(out, m, m.Targets) }

// printVerified prints what was verified: the complete bundle, or the files that
// the given targets need.
func printVerified(out io.Writer, m *bundle.Manifest, targets []gfx.Target) {
	missing := slices.DeleteFunc(slices.Clone(m.Targets), func(t gfx.Target) bool { return slices.Contains(targets, t) })
	result := "is complete for " + gfx.Join(targets, ", ") + ", without " + gfx.Join(missing, ", ")
	switch {
	case len(missing) == 0:
		result = "is complete"
	case len(targets) == 0:
		result = "is complete without the files of GPU targets"
	}
	var files int
	var bytes int64
	needed := bundle.ForTargets(append([]gfx.Target{}, targets...)) // nil would mean all targets
	for _, f := range m.Files {
		if needed(f) {
			files++
			bytes += f.Size
		}
	}
	_, _ = fmt.Fprintf(out, "%s %s %s: %d files, %s, digest %s\n", m.Name, m.Version, result, files, formatSize(bytes), m.Digest())
}
