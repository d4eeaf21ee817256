package build

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ci"
)

// defaultSoak is the default of GOROCM_SOAK, how long a web page is kept open.
const defaultSoak = "1h"

// Pages tests the web pages in Chromium. It keeps the page /status open for an hour
// while requests run, checks that the page does not grow, and writes the screenshots
// of docs/images.
func Pages() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, _ *Session, p ci.Project) error {
		soak := cmp.Or(os.Getenv("GOROCM_SOAK"), defaultSoak)
		if d, err := time.ParseDuration(soak); err != nil || d <= 0 {
			return fmt.Errorf("GOROCM_SOAK is %q; set it to a duration, such as %s", soak, defaultSoak)
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-tags=e2e", "-count=1", "-timeout=0", "-v", "./pages", "-update-screenshots", "-soak="+soak)
		cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(p.Root, "testing", "e2e"), os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), ci.EveryCase) // a screenshot of each view
		return cmd.Run()
	}))
}
