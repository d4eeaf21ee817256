package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/rocm"
)

func verifyCommand() *cobra.Command {
	var embedded, installed bool
	cmd := &cobra.Command{
		Use:   "verify (FILE | DIR | --embedded | --installed)",
		Short: "check every byte of a bundle against its manifest",
		Long: `Reads all of a bundle (a packed file, a folder, the one that is built in, or the
one that the package installed) and compares size, mode and SHA-256 of each file
with the manifest. Anything that is missing, too much or different is listed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := len(args)
			for _, on := range []bool{embedded, installed} {
				if on {
					chosen++
				}
			}
			if chosen != 1 {
				return fmt.Errorf("%w: verify: name one bundle: FILE, DIR, --embedded or --installed", errUsage)
			}
			var m *bundle.Manifest
			var err error
			switch {
			case embedded:
				return verifyEmbedded(cmd.Context(), cmd.OutOrStdout())
			case installed:
				m, err = verifyFolder(cmd.Context(), rocm.InstalledDir)
			default:
				m, err = verifyPath(cmd.Context(), args[0])
			}
			if err != nil {
				return explainVerify(err)
			}
			printWhole(cmd.OutOrStdout(), m)
			return nil
		},
	}
	cmd.Flags().BoolVar(&embedded, "embedded", false, "check the bundle that is built into this program")
	cmd.Flags().BoolVar(&installed, "installed", false, "check the bundle in "+rocm.InstalledDir)
	return cmd
}

func verifyPath(ctx context.Context, path string) (*bundle.Manifest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if info.IsDir() {
		return verifyFolder(ctx, path)
	}
	f, err := bundle.OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	return f.Manifest(), f.Verify(ctx)
}

func verifyFolder(ctx context.Context, dir string) (*bundle.Manifest, error) {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	return m, bundle.Verify(ctx, dir, m)
}

// verifyEmbedded checks every variant that is built in.
func verifyEmbedded(ctx context.Context, out io.Writer) error {
	variants, err := payload.Variants()
	if err == nil && len(variants) == 0 {
		err = payload.ErrNotBuilt
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, v := range variants {
		r, err := payload.OpenVariant(v)
		if err == nil {
			err = r.Verify(ctx)
		}
		if err != nil {
			return explainVerify(fmt.Errorf("verify the built-in %s bundle: %w", v, err))
		}
		printWhole(out, r.Manifest())
	}
	return nil
}

func printWhole(out io.Writer, m *bundle.Manifest) {
	_, _ = fmt.Fprintf(out, "%s %s is whole: %d files, %s, digest %s\n", m.Name, m.Version, len(m.Files), size(m.Size()), m.Digest())
}

// explainVerify adds what to do about a damaged bundle.
func explainVerify(err error) error {
	var damage *bundle.VerifyError
	if errors.As(err, &damage) {
		return fmt.Errorf("%w; install or build the bundle again", err)
	}
	return err
}
