package cli

import (
	"context"
	"errors"
	"fmt"
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
				m, err = verifyEmbedded(cmd.Context())
			case installed:
				m, err = verifyFolder(cmd.Context(), rocm.InstalledDir)
			default:
				m, err = verifyPath(cmd.Context(), args[0])
			}
			if err != nil {
				return explainVerify(err)
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s %s is whole: %d files, %s, digest %s\n",
				m.Name, m.Version, len(m.Files), size(m.Size()), m.Digest())
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

func verifyEmbedded(ctx context.Context) (*bundle.Manifest, error) {
	r, err := payload.Open()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return r.Manifest(), r.Verify(ctx)
}

// explainVerify adds what to do about a damaged bundle.
func explainVerify(err error) error {
	var damage *bundle.VerifyError
	if errors.As(err, &damage) {
		return fmt.Errorf("%w; install or build the bundle again", err)
	}
	return err
}
