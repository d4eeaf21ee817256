package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gofrs/flock"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Reproduce builds a second time under other circumstances and compares every
// artifact. Compiles that the settings name are taken from the first build;
// everything else is made anew, from a fresh toolchain image on.
func Reproduce() error {
	return inCheckout(func(ctx context.Context, s *Session) error {
		if err := s.release(ctx); err != nil {
			return err
		}
		root, err := Root()
		if err != nil {
			return err
		}
		// A demand of a person is met anew, whatever an earlier one has proven.
		err = s.second(ctx, func() error { return os.RemoveAll(s.secondCache()) })
		if err != nil {
			return err
		}
		return s.reproduce(ctx, root, s.dist(root), s.Settings.TakesOver)
	})
}

// provenInto is the step of a delivery that wants it to come out the same from a
// second build. Files that have done so before are not built again.
func (s *Session) provenInto(ctx context.Context, d *delivery) error {
	proven, err := s.proven(d.dir, s.Settings.TakesOver)
	if err != nil {
		return err
	}
	if proven {
		return s.say("reproduce: these files came out the same from two builds before")
	}
	return s.reproduce(ctx, d.root, d.dir, s.Settings.TakesOver)
}

// secondCache is where second builds keep their stages: a stage in it was made
// a second time, and what has been proven once for the same inputs holds until
// they change.
func (s *Session) secondCache() string { return filepath.Join(s.Settings.Cache, "reproduce") }

// second runs what changes the second cache, which is one for all checkouts.
func (s *Session) second(ctx context.Context, f func() error) error {
	return s.alone(ctx, flock.New(s.secondCache()+".lock"), "another second build", f)
}

// reproduce makes the second build of the release in dist, which was added to
// what is published, and compares both. takes names the stages that are taken
// over from the first.
func (s *Session) reproduce(ctx context.Context, root, dist string, takes []string) error {
	return s.second(ctx, func() (err error) {
		published, err := s.published(root)
		if err != nil {
			return err
		}
		// The second build gets another path of another length. It is always the
		// same, so that what a killed one left goes.
		work := filepath.Join(s.Settings.Cache, "reproduce-in-a-folder-with-a-longer-name")
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
		second := filepath.Join(work, "checkout")
		if err := s.copyCheckout(ctx, root, second); err != nil {
			return err
		}
		if err := s.seed(takes); err != nil {
			return err
		}
		if err := s.say("reproduce: second build in %s", second); err != nil {
			return err
		}
		if err := s.buildElsewhere(ctx, second, work, published); err != nil {
			return fmt.Errorf("the second build: %w", err)
		}
		if err := s.sampleTwice(ctx); err != nil {
			return err
		}
		if err := s.compare(ctx, dist, filepath.Join(second, "dist"), filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")); err != nil {
			return err
		}
		return s.prove(dist, takes)
	})
}

// proof is the file that says of a release that two builds gave it, and the file
// holds what the second had taken over from the first.
func (s *Session) proof(dist string) (string, error) {
	sum, err := stage.FileDigest(filepath.Join(dist, release.ChecksumsFile))
	return filepath.Join(s.secondCache(), "proven", sum), err
}

func (s *Session) prove(dist string, takes []string) error {
	name, err := s.proof(dist)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(strings.Join(takes, " ")), 0o600)
}

// proven says whether a second build that took over no more than takes has given
// the files of a release.
func (s *Session) proven(dist string, takes []string) (bool, error) {
	name, err := s.proof(dist)
	if err != nil {
		return false, err
	}
	took, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	more := func(name string) bool { return !slices.Contains(takes, name) }
	return err == nil && !slices.ContainsFunc(strings.Fields(string(took)), more), err
}

// sampleTwice compiles a sample of the HIP module for both caches: its compile
// is the one that is usually taken over.
func (s *Session) sampleTwice(ctx context.Context) error {
	if !slices.Contains(s.Settings.Variants, "hip") {
		return nil
	}
	if _, err := s.Recipe.Sample(ctx); err != nil {
		return err
	}
	cache, err := stage.Open(filepath.Join(s.secondCache(), "stages"))
	if err != nil {
		return err
	}
	again := *s.Recipe
	again.Cache, again.Engine, again.Jobs = cache, engine.Elsewhere(s.Recipe.Engine), s.Recipe.Jobs+1
	_, err = again.Sample(ctx)
	return err
}

// takenName marks a stage of the second cache that was taken over: it proves
// nothing, and goes when a later run does not take it.
const takenName = "taken"

// seed gives the second cache the source, what was fetched, and the stages that
// are taken over, and removes from it what proves nothing any more.
func (s *Session) seed(takes []string) error {
	from, to := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	takes = append(slices.Clip(takes), "source", "package")
	taken := func(name string) bool {
		return slices.ContainsFunc(takes, func(t string) bool { return strings.HasPrefix(name, t+"-") })
	}
	have, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range have {
		dir := filepath.Join(to, e.Name())
		if e.IsDir() && (!exists(filepath.Join(from, e.Name())) || exists(filepath.Join(dir, takenName)) && !taken(e.Name())) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		finished := exists(filepath.Join(from, e.Name(), "stage.json")) && !strings.HasSuffix(e.Name(), ".part")
		if !finished || !taken(e.Name()) || exists(filepath.Join(to, e.Name())) {
			continue
		}
		if err := take(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("seed %s: %w", e.Name(), err)
		}
	}
	return nil
}

// take copies a stage with its modes, which are part of what is compared; a copy
// that was cut short is none.
func take(from, to string) error {
	work := to + ".part"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.CopyFS(work, os.DirFS(from)); err != nil {
		return err
	}
	if err := copyModes(from, work); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, takenName), nil, 0o600); err != nil {
		return err
	}
	return stage.Settle(work, to)
}

// copyModes gives a copy the modes of what it is of: os.CopyFS leaves them to the
// umask.
func copyModes(from, to string) error {
	return filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chmod(filepath.Join(to, rel), info.Mode().Perm())
	})
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// buildElsewhere runs a release with everything about it changed that must
// not matter: umask, user name, home, locale, time zone, host name, number of
// jobs and processors, variables that mean nothing, and in containers what
// engine.Elsewhere changes.
func (s *Session) buildElsewhere(ctx context.Context, checkout, work, published string) error {
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
	cmd.Env = append(os.Environ(), s.elsewhere(work, modules, published)...)
	return procgroup.Run(ctx, cmd, buildGrace)
}

// elsewhere is the environment of the second build, beside what the first has of
// it: a path that was given from the first one's folder is made to mean the same.
func (s *Session) elsewhere(work, modules, published string) []string {
	return append(s.Settings.Paths(),
		"HOME="+work, "USER=somebody", "LOGNAME=somebody", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "TZ=Pacific/Kiritimati",
		"GOROCM_CACHE="+s.secondCache(), "GOROCM_DIST=dist", "GOROCM_ELSEWHERE=true", "GOROCM_REPRODUCE=never", "GOROCM_JOBS="+strconv.Itoa(s.Settings.Jobs+1),
		"GOROCM_PUBLISHED="+published,
		"GOMODCACHE="+modules, "GOCACHE="+filepath.Join(s.secondCache(), "go-build"), "MAGEFILE_CACHE="+filepath.Join(work, "magefile"),
		"GOMAXPROCS="+strconv.Itoa(runtime.NumCPU()+1),
		"CFLAGS=-O0", "CXXFLAGS=-g", "LDFLAGS=-s", "MAKEFLAGS=-j7", "NOISE="+strings.Repeat("noise", 1000))
}

// buildGrace is what a build or a test run that is called off has to end its
// containers and servers and to remove what it has begun.
const buildGrace = 30 * time.Second

// compared is one row of the table.
type compared struct {
	name, first, second string
	paths               [2]string // where both are
	taken               bool      // the second is a copy of the first
}

// compare prints a table of digests of both deliveries and of the stages that
// both caches made, and fails with all differences explained.
func (s *Session) compare(ctx context.Context, firstDist, secondDist, firstStages, secondStages string) error {
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
	over := 0
	for _, r := range append(stages, rows...) {
		mark := "equal"
		if r.taken {
			mark = "taken"
			over++
		}
		if r.first != r.second {
			mark = "DIFFERS"
			differ = append(differ, fmt.Errorf("%s: %s", r.name, explain(ctx, r.paths[0], r.paths[1])))
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
	return s.say("reproduce: %d artifacts and stages are bit for bit the same, %d were taken over", len(rows)+len(stages)-over, over)
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
				rows = append(rows, compared{name: name, paths: [2]string{filepath.Join(first, name), filepath.Join(second, name)}})
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
