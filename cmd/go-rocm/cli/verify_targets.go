package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// verifyUnpacked checks a bundle's folder for whatever targets it is.
func verifyUnpacked(ctx context.Context, out io.Writer, dir string) error {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	targets, err := bundle.VerifyFound(ctx, dir, m)
	if err != nil {
		return explainVerify(err)
	}
	printRight(out, m, targets)
	return nil
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
