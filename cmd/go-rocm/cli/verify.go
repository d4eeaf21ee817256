package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

func verifyCommand() *cobra.Command {
	var embedded, installed bool
	var keys keyFiles
	cmd := &cobra.Command{
		Use:   "verify (FILE | DIR | --embedded | --installed)",
		Short: "check a bundle or a release, byte by byte",
		Long: `Reads all of a bundle (a packed file, a folder, the one that is built in, or the
one that the package installed) and compares size, mode and SHA-256 of each file
with the manifest. Anything in a folder that is missing, too much or different is
listed, and of a packed bundle the first damage in each of its frames. A folder
that was unpacked for some of the bundle's GPU targets is judged by what these
need, and the answer names them; the installed bundle must have all.

Given the folder of a release, or any file of one, it compares with SHA256SUMS.
With a public key that you trust it also checks the signature by that key, and
fails where there is none: without one, the digests only show that the files
belong together. Nothing is fetched.`,
		Example: `  go-rocm verify --installed
  go-rocm verify dist --minisign-key go-rocm.pub
  go-rocm verify dist --openpgp-key /usr/share/keyrings/go-rocm-archive-keyring.gpg
  go-rocm verify dist/llama-hip-v0.5.0-linux-amd64.tar.zst`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := len(args)
			for _, on := range []bool{embedded, installed} {
				if on {
					chosen++
				}
			}
			if chosen != 1 {
				return fmt.Errorf("%w: verify: name one bundle or release: FILE, DIR, --embedded or --installed", errUsage)
			}
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			if keys != (keyFiles{}) && len(args) == 0 {
				return fmt.Errorf("%w: verify: keys are for the files of a release", errUsage)
			}
			switch {
			case embedded:
				return verifyEmbedded(ctx, out, payload.Embedded())
			case installed:
				return verifyInstalled(ctx, out, rocm.InstalledDir)
			}
			return verifyPath(ctx, out, args[0], keys)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&embedded, "embedded", false, "check the bundle that is built into this program")
	fs.BoolVar(&installed, "installed", false, "check the bundle in "+rocm.InstalledDir)
	fs.StringVar(&keys.minisign, "minisign-key", "", "require "+release.MinisignFile+" by the public key in this file")
	fs.StringVar(&keys.openPGP, "openpgp-key", "", "require "+release.OpenPGPFile+" by an OpenPGP public key in this file")
	fs.StringVar(&keys.provenance, "provenance-key", "", "require "+release.ProvenanceFile+" by the Ed25519 public key in this PEM file")
	return cmd
}

// keyFiles name the public keys that a receiver trusts.
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

// readKey reads the key in the file that a flag names; nil when it names none.
func readKey[K any](flag, path string, parse func([]byte) (*K, error)) (*K, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	key, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, path, err)
	}
	return key, nil
}

// verifyPath checks what lies at path: a bundle's folder, a packed bundle, the
// folder of a release or a file of it. A packed bundle in a release is checked
// as both.
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
			return reportRelease(out, path)(release.Verify(ctx, path, keys))
		}
		if k != (keyFiles{}) {
			return fmt.Errorf("verify: %s has no %s, so it is not the folder of a release", path, release.ChecksumsFile)
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
	found, err := release.VerifyFile(ctx, path, keys)
	if k == (keyFiles{}) && errors.Is(err, release.ErrChecksums) {
		if packed {
			return nil // a bundle by itself
		}
		if errors.Is(openErr, bundle.ErrContent) {
			return explainVerify(path, openErr)
		}
		return fmt.Errorf("verify %s: neither a packed bundle (%w) nor a file of a release (%w)", path, openErr, err)
	}
	return reportRelease(out, path)(found, err)
}

func reportRelease(out io.Writer, path string) func(*release.Report, error) error {
	return func(r *release.Report, err error) error {
		if err != nil {
			return fmt.Errorf("verify %s: %w", path, err)
		}
		by := "not checked for a signature: give a key that you trust"
		if len(r.Signatures) > 0 {
			by = "signed: " + strings.Join(r.Signatures, ", ")
		}
		_, err = fmt.Fprintf(out, "%s: %d files as in %s, %s\n", path, len(r.Files), release.ChecksumsFile, by)
		if err == nil && len(r.Unattested) > 0 {
			_, err = fmt.Fprintf(out, "not named by the provenance: %s\n", strings.Join(r.Unattested, ", "))
		}
		return err
	}
}
