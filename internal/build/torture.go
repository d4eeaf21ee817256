package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// tortureRounds is the default of GOROCM_TORTURE, the number of times that each fault
// is injected.
const tortureRounds = "100"

// torturePackages are the packages whose tests repeat faults with testing/torture.
var torturePackages = []string{"runtime/extract", "runtime/supervise", "."}

// schedulesPerRound is how many schedules of requests and faults the scheduler's test
// draws for each round.
const schedulesPerRound = 1000

// faultsPage is the document that names the test of each fault.
const faultsPage = "docs/faults.md"

// Torture injects every fault of docs/faults.md repeatedly, under the race detector, and
// draws many schedules for the scheduler.
func Torture() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, _ *Session, p ci.Project) error {
		rounds := os.Getenv("GOROCM_TORTURE")
		if rounds == "" {
			rounds = tortureRounds
		}
		page, err := os.ReadFile(filepath.Join(p.Root, faultsPage))
		if err != nil {
			return err
		}
		tests := faultTests(string(page))
		if len(tests) == 0 {
			return fmt.Errorf("%s names no test", faultsPage)
		}
		n, err := strconv.Atoi(rounds)
		if err != nil || n < 1 {
			return fmt.Errorf("GOROCM_TORTURE is %q; set it to a number of rounds, such as %s", rounds, tortureRounds)
		}
		faults := []string{"test", "-race", "-count=1", "-timeout=0", "-v", "-run=^(" + strings.Join(tests, "|") + ")$"}
		for _, dir := range torturePackages {
			faults = append(faults, "./"+dir)
		}
		schedules := []string{"test", "-count=1", "-timeout=0", "./runtime/scheduler", "-rapid.checks=" + strconv.Itoa(n*schedulesPerRound)}
		for _, args := range [][]string{schedules, faults} {
			cmd := exec.CommandContext(ctx, "go", args...)
			cmd.Dir, cmd.Stdout, cmd.Stderr = p.Root, os.Stdout, os.Stderr
			cmd.Env = append(os.Environ(), "GOROCM_TORTURE="+rounds)
			if err := procgroup.Run(ctx, cmd, shutdownGrace); err != nil {
				return err
			}
		}
		return nil
	}))
}

// faultTests returns the tests that the faults page names, sorted and each once.
func faultTests(page string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}
