package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/ci"
)

// Bench runs every benchmark, those beside the code and those against named
// peers, on the real bundle. It prints what the go command prints, for
// benchstat and for people.
func Bench() error {
	return checking(func(ctx context.Context, s *Session, p ci.Project) error {
		packed, err := s.Bundles(ctx)
		if err != nil {
			return err
		}
		chosen, err := bundleOf(packed, s.Settings.Embed)
		if err != nil {
			return err
		}
		for _, dir := range []string{p.Root, filepath.Join(p.Root, "testing", "bench")} {
			cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=.", "-benchmem", "-count=5", "-timeout=60m", "./...")
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
			cmd.Env = append(os.Environ(), ci.EnvBundle+"="+chosen.File)
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("benchmarks in %s: %w", dir, err)
			}
		}
		return nil
	})
}
