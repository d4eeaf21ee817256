package build

import (
	"context"
	"os"
	"os/exec"

	"forge.lthn.ai/core/go-rocm/internal/ci"
)

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
