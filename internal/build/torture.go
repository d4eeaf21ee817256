package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ci"
)

// tortureRounds is the default of GOROCM_TORTURE, the number of times that each fault
// is injected.
const tortureRounds = "100"

// torturePackages are the packages whose tests repeat faults with testing/torture.
var torturePackages = []string{"runtime/extract", "runtime/supervise", "."}

// modelPackages are the packages of downloads and of the store, whose tests try more cuts
// and power failures under torture. They run once, without the race detector.
var modelPackages = []string{"runtime/download", "runtime/hub", "runtime/oci", "runtime/modelstore", "runtime/pull"}

// schedulesPerRound is how many schedules of requests and faults the scheduler's test
// draws for each round.
const schedulesPerRound = 1000

// faultsPage is the document that names the test of each fault.
const faultsPage = "docs/faults.md"

// severalPerRound is how long the end-to-end test of several models runs for each round.
const severalPerRound = 6 * time.Second

// Torture injects every fault of docs/faults.md repeatedly, under the race detector,
// draws many schedules for the scheduler, and lets clients use several models of the
// built bundle while these are killed, unloaded and reconfigured.
func Torture() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
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
		run := "-run=^(" + strings.Join(tests, "|") + ")$"
		faults := []string{"test", "-race", "-count=1", "-timeout=0", "-v", run}
		for _, dir := range torturePackages {
			faults = append(faults, "./"+dir)
		}
		models := []string{"test", "-count=1", "-timeout=0", "-v", run}
		for _, dir := range modelPackages {
			models = append(models, "./"+dir)
		}
		schedules := []string{"test", "-count=1", "-timeout=0", "./runtime/scheduler", "-rapid.checks=" + strconv.Itoa(n*schedulesPerRound)}
		for _, args := range [][]string{schedules, faults, models} {
			if err := runGo(ctx, p.Root, []string{"GOROCM_TORTURE=" + rounds, "GOROCM_CASES=all"}, args...); err != nil {
				return err
			}
		}
		return s.tortureSeveral(ctx, p.Root, time.Duration(n)*severalPerRound)
	}))
}

// tortureSeveral runs the test of several models on the cpu bundle for a time.
func (s *Session) tortureSeveral(ctx context.Context, root string, limit time.Duration) error {
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	source, packs, err := s.subjects(ctx, "cpu")
	if err != nil {
		return err
	}
	env := []string{ci.EnvBundle + "=" + packs[0], ci.EnvSource + "=" + source, "GOROCM_SEVERAL_TIME=" + limit.String()}
	return runGo(ctx, filepath.Join(root, "testing", "e2e"), env, "test", "-tags=e2e", "-count=1", "-timeout=0", "-v", "-run=^TestServeSeveralModels$", ".")
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
