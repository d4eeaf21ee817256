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

// tortureRounds is how often each fault is injected unless GOROCM_TORTURE says
// otherwise.
const tortureRounds = "100"

// Torture injects every fault of docs/faults.md again and again, under the race
// detector.
func Torture() error {
	return checking(func(ctx context.Context, _ *Session, p ci.Project) error {
		rounds := os.Getenv("GOROCM_TORTURE")
		if rounds == "" {
			rounds = tortureRounds
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-race", "-count=1", "-timeout=0", "-v", "-run=Fault", "./runtime/extract", "./runtime/supervise")
		cmd.Dir, cmd.Stdout, cmd.Stderr = p.Root, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "GOROCM_TORTURE="+rounds)
		return cmd.Run()
	})
}
