package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
)

func verifyCommand() *cobra.Command {
	var embedded, installed bool
	var keys keyFiles
	cmd := &cobra.Command{
		Use:   "verify (FILE | DIR | --embedded | --installed)",
		Short: "check every byte of a bundle or a release",
		Long: `Reads a whole bundle (a packed file, a directory, the embedded one, or the one
that the package installed) and compares size, mode and SHA-256 of every file with
the manifest. In a directory, every missing, extra or changed file is listed; in a
packed bundle, the first damage in each frame. A directory unpacked for some of
the bundle's GPU targets must have the files of those, and the output names them;
the installed bundle must have all.

Given a release's directory, or a file in it, verify compares with SHA256SUMS. With
a public key that you trust, it also requires a valid signature by that key.
Without one, matching digests only show that the files belong together. Nothing is
downloaded.`,
		Example: `  go-rocm verify --installed
  go-rocm verify dist --minisign-key go-rocm.pub
  go-rocm verify dist --openpgp-key /usr/share/keyrings/go-rocm-archive-keyring.gpg
  go-rocm verify dist/llama-hip-v0.5.0-linux-amd64.tar.zst`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			subjects := len(args)
			for _, set := range []bool{embedded, installed} {
				if set {
					subjects++
				}
			}
			if subjects != 1 {
				return fmt.Errorf("%w: verify: name one bundle or release: FILE, DIR, --embedded or --installed", errUsage)
			}
			if keys != (keyFiles{}) && len(args) == 0 {
				return fmt.Errorf("%w: verify: a key needs the FILE or DIR of a release", errUsage)
			}
			ctx, out := cmd.Context(), stdout(cmd)
			switch {
			case embedded:
				return verifyEmbedded(ctx, out, payload.Embedded())
			case installed:
				return verifyInstalled(ctx, out, locate.InstalledDir)
			}
			return verifyPath(ctx, out, args[0], keys)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&embedded, "embedded", false, "check the bundle embedded in this program")
	fs.BoolVar(&installed, "installed", false, "check the bundle in "+locate.InstalledDir)
	fs.StringVar(&keys.minisign, "minisign-key", "", "require "+release.MinisignFile+" by the public key in this file")
	fs.StringVar(&keys.openPGP, "openpgp-key", "", "require "+release.OpenPGPFile+" by an OpenPGP public key in this file")
	fs.StringVar(&keys.provenance, "provenance-key", "", "require "+release.ProvenanceFile+" by the Ed25519 public key in this PEM file")
	return cmd
}

// keyFiles are the files of the public keys that the user trusts.
type keyFiles struct{ minisign, openPGP, provenance string }

func (k keyFiles) read() (keys release.TrustedKeys, err error) {
	if keys.Minisign, err = readKey("--minisign-key", k.minisign, release.ParseMinisignVerifier); err != nil {
		return keys, err
	}
	if keys.OpenPGP, err = readKey("--openpgp-key", k.openPGP, release.ParseOpenPGPVerifier); err != nil {
		return keys, err
	}
	keys.Provenance, err = readKey("--provenance-key", k.provenance, release.ParseProvenanceVerifier)
	return keys, err
}

// maxKeySize limits a file of public keys, in bytes.
const maxKeySize = 1 << 20

// readKey reads the key in the file that a flag names, or returns nil if the flag
// is not set.
func readKey[K any](flag, path string, parse func([]byte) (*K, error)) (*K, error) {
	if path == "" {
		return nil, nil
	}
	text, err := regfile.ReadText(path, maxKeySize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	key, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, path, err)
	}
	return key, nil
}

// verifyPath checks a bundle's directory, a packed bundle, a release's directory
// or a file in it. A packed bundle in a release is checked as both.
func verifyPath(ctx context.Context, out io.Writer, path string, k keyFiles) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	keys, err := k.read()
	if err != nil {
		return err
	}
	if info.IsDir() {
		if _, err := os.Stat(filepath.Join(path, release.ChecksumsFile)); err == nil {
			r, err := release.Verify(ctx, path, keys)
			return reportRelease(out, path, r, err)
		}
		if k != (keyFiles{}) {
			return fmt.Errorf("verify: %s is not a release: it has no %s", path, release.ChecksumsFile)
		}
		return verifyUnpacked(ctx, out, path)
	}
	f, openErr := bundle.OpenFile(path)
	packed := openErr == nil
	if packed {
		if err := verifyPack(ctx, out, path, f); err != nil {
			return err
		}
	}
	r, err := release.VerifyFile(ctx, path, keys)
	if k == (keyFiles{}) && errors.Is(err, release.ErrChecksums) {
		if packed {
			return nil // a bundle outside of a release
		}
		if errors.Is(openErr, bundle.ErrContent) {
			return describeVerifyError(path, openErr)
		}
		return fmt.Errorf("verify %s: neither a packed bundle (%w) nor a file of a release (%w)", path, openErr, err)
	}
	return reportRelease(out, path, r, err)
}

// reportRelease prints the result of checking the release, or the file, at path.
func reportRelease(out io.Writer, path string, r *release.Report, err error) error {
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	signatures := "no signature checked: pass a key that you trust"
	if len(r.Signatures) > 0 {
		signatures = "signed: " + strings.Join(r.Signatures, ", ")
	}
	_, err = fmt.Fprintf(out, "%s: %d files match %s, %s\n", printable(path), len(r.Files), release.ChecksumsFile, signatures)
	if err == nil && len(r.Unattested) > 0 {
		_, err = fmt.Fprintf(out, "not in the provenance: %s\n", printable(strings.Join(r.Unattested, ", ")))
	}
	return err
}

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
