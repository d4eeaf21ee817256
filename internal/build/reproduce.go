package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// Reproduce builds a second time under other circumstances and compares every
// artifact. Compiles that the settings name are taken from the first build;
// everything else is made anew, from a fresh toolchain image on.
func Reproduce() error {
	return within(func(ctx context.Context, s *Session) error { return s.reproduce(ctx) })
}

// reproduce makes both builds and compares them.
func (s *Session) reproduce(ctx context.Context) (err error) {
	root, err := Root()
	if err != nil {
		return err
	}
	if err := s.release(ctx); err != nil {
		return err
	}
	// The second build gets another path of another length.
	work, err := os.MkdirTemp(s.Settings.Cache, "reproduce-in-a-folder-with-a-longer-name-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	second := filepath.Join(work, "checkout")
	if err := copyCheckout(ctx, root, second); err != nil {
		return err
	}
	cache := filepath.Join(work, "cache")
	if err := s.seed(cache, s.Settings.TakesOver); err != nil {
		return err
	}
	if err := s.say("reproduce: second build in %s", second); err != nil {
		return err
	}
	if err := s.buildElsewhere(ctx, second, cache, work, s.published(root)); err != nil {
		return fmt.Errorf("the second build: %w", err)
	}
	return s.compare(s.dist(root), filepath.Join(second, "dist"), filepath.Join(s.Settings.Cache, "stages"), filepath.Join(cache, "stages"))
}

// copyCheckout copies what git tracks or would track, into a repository at the
// same revision: the provenance names it.
func copyCheckout(ctx context.Context, root, to string) error {
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", "--no-checkout", root, to).CombinedOutput(); err != nil {
		return fmt.Errorf("clone the checkout: %w\n%s", err, out)
	}
	names, err := checkedIn(ctx, root)
	if err != nil {
		return err
	}
	for _, name := range names {
		from := filepath.Join(root, name)
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		goal := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(goal), 0o755); err != nil { //nolint:gosec // a checkout
			return err
		}
		if err := copyInto(from, goal, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// seed gives the second build's cache the source and the named stages.
func (s *Session) seed(cache string, names []string) error {
	from, to := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(cache, "stages")
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		take := e.IsDir() && slices.ContainsFunc(append(slices.Clip(names), "source"), func(n string) bool { return strings.HasPrefix(e.Name(), n+"-") })
		if !take || strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		if err := os.CopyFS(filepath.Join(to, e.Name()), os.DirFS(filepath.Join(from, e.Name()))); err != nil {
			return fmt.Errorf("seed %s: %w", e.Name(), err)
		}
	}
	return nil
}

// buildElsewhere runs a release with everything about it changed that must
// not matter: umask, user name, home, locale, time zone, host name, number of
// jobs, and variables that mean nothing.
func (s *Session) buildElsewhere(ctx context.Context, checkout, cache, work, published string) error {
	script := `umask 077; exec "$@"`
	argv := []string{"sh", "-c", script, "sh", "go", "run", "mage.go", "release"}
	if os.Geteuid() == 0 {
		argv[2] = "hostname another-host; " + script
		argv = append([]string{"unshare", "--uts"}, argv...)
	}
	modules, err := goEnv(ctx, "GOMODCACHE")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = checkout, os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(),
		"HOME="+work, "USER=somebody", "LOGNAME=somebody", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "TZ=Pacific/Kiritimati",
		"GOROCM_CACHE="+cache, "GOROCM_DIST=dist", "GOROCM_JOBS="+strconv.Itoa(s.Settings.Jobs+1),
		"GOROCM_PUBLISHED="+published,
		"GOMODCACHE="+modules, "GOCACHE="+filepath.Join(work, "go-build"), "MAGEFILE_CACHE="+filepath.Join(work, "magefile"),
		"CFLAGS=-O0", "CXXFLAGS=-g", "LDFLAGS=-s", "MAKEFLAGS=-j7", "NOISE="+strings.Repeat("noise", 1000))
	return cmd.Run()
}

// compared is one row of the table.
type compared struct{ name, first, second string }

// compare prints a table of digests of both deliveries and of the stages that
// both caches made, and fails on the first difference.
func (s *Session) compare(firstDist, secondDist, firstStages, secondStages string) error {
	rows, err := digests(firstDist, secondDist)
	if err != nil {
		return err
	}
	stages, err := stageOutputs(firstStages, secondStages)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	var differ []error
	for _, r := range append(stages, rows...) {
		mark := "equal"
		if r.first != r.second {
			mark = "DIFFERS"
			differ = append(differ, fmt.Errorf("%s: %s", r.name, explain(filepath.Join(firstDist, r.name), filepath.Join(secondDist, r.name))))
		}
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%.16s\t%.16s\n", mark, r.name, r.first, r.second); err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(differ) > 0 {
		return fmt.Errorf("not reproducible:\n%w", errors.Join(differ...))
	}
	return s.say("reproduce: %d artifacts and stages are bit for bit the same", len(rows)+len(stages))
}

// digests compares the files of two folders by name.
func digests(first, second string) ([]compared, error) {
	var rows []compared
	for _, dir := range []string{first, second} {
		names, err := filesBelow(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			sum, err := stage.FileDigest(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(rows, func(r compared) bool { return r.name == name })
			if i < 0 {
				rows = append(rows, compared{name: name})
				i = len(rows) - 1
			}
			if dir == first {
				rows[i].first = sum
			} else {
				rows[i].second = sum
			}
		}
	}
	return rows, nil
}
