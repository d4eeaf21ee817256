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
	"time"

	"github.com/gofrs/flock"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Reproduce builds a release a second time in a varied environment and compares
// every artifact. The second build reuses the compile stages that the settings
// name; it builds everything else anew, beginning with the toolchain image.
func Reproduce() error {
	return withCheckout(func(ctx context.Context, s *Session) error {
		if err := s.release(ctx); err != nil {
			return err
		}
		root, err := Root()
		if err != nil {
			return err
		}
		// An explicit run proves everything anew, whatever earlier runs have proved.
		err = s.withSecondCache(ctx, func() error { return removeWork(s.secondCache()) })
		if err != nil {
			return err
		}
		return s.reproduce(ctx, root, s.dist(root), s.Settings.Reuse)
	})
}

// reproduceInto is the step of a delivery that must be reproducible. It does not
// build again if earlier builds have reproduced the same files.
func (s *Session) reproduceInto(ctx context.Context, d *delivery) error {
	proven, err := s.isProven(d.dir, s.Settings.Reuse)
	if err != nil {
		return err
	}
	if proven {
		return s.printf("reproduce: an earlier second build produced the same files")
	}
	return s.reproduce(ctx, d.root, d.dir, s.Settings.Reuse)
}

// secondCache returns the directory where second builds keep their stages. A
// stage in it was built a second time; the proof holds until its inputs change.
func (s *Session) secondCache() string { return filepath.Join(s.Settings.Cache, "reproduce") }

// withSecondCache runs f under the lock of the second cache, which all checkouts
// share.
func (s *Session) withSecondCache(ctx context.Context, f func() error) error {
	return s.withLock(ctx, flock.New(s.secondCache()+".lock"), "another second build", f)
}

// reproduce runs the second build of the release in dist, which was added to the
// published releases, and compares both. reuse names the stages that the second
// build copies from the first.
func (s *Session) reproduce(ctx context.Context, root, dist string, reuse []string) error {
	return s.withSecondCache(ctx, func() (err error) {
		published, err := s.publishedRoot(root)
		if err != nil {
			return err
		}
		// The path of the second build has another length. It is always the same
		// path, so that the remains of a killed build are removed.
		work := filepath.Join(s.Settings.Cache, "reproduce-in-a-directory-with-a-longer-name")
		if err := errors.Join(removeWork(work), ensureWork(work)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeWork(work)) }()
		second := filepath.Join(work, "checkout")
		if err := s.copyCheckout(ctx, root, second); err != nil {
			return err
		}
		if err := s.seedCache(reuse); err != nil {
			return err
		}
		if err := s.printf("reproduce: second build in %s", second); err != nil {
			return err
		}
		if err := s.secondBuild(ctx, second, work, published); err != nil {
			return fmt.Errorf("the second build: %w", err)
		}
		if err := s.sampleTwice(ctx); err != nil {
			return err
		}
		if err := s.compare(ctx, dist, filepath.Join(second, "dist"), filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")); err != nil {
			return err
		}
		return s.recordProof(dist, reuse)
	})
}

// proofFile returns the name of the file that records a proof that the release in
// dist is reproducible. The file lists the stages that the second build reused.
func (s *Session) proofFile(dist string) (string, error) {
	sum, err := stage.FileDigest(filepath.Join(dist, release.ChecksumsFile))
	return filepath.Join(s.secondCache(), "proven", sum), err
}

func (s *Session) recordProof(dist string, reused []string) error {
	name, err := s.proofFile(dist)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(strings.Join(reused, " ")), 0o600)
}

// isProven reports whether a second build that reused at most the stages of reuse
// has produced the files of a release.
func (s *Session) isProven(dist string, reuse []string) (bool, error) {
	name, err := s.proofFile(dist)
	if err != nil {
		return false, err
	}
	reused, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	excess := func(name string) bool { return !slices.Contains(reuse, name) }
	return err == nil && !slices.ContainsFunc(strings.Fields(string(reused)), excess), err
}

// sampleTwice compiles a sample of the HIP module in both caches: the compile of
// that module is usually reused.
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
	varied := *s.Recipe
	varied.Cache, varied.Engine, varied.Jobs = cache, engine.Vary(s.Recipe.Engine), s.Recipe.Jobs+1
	_, err = varied.Sample(ctx)
	return err
}

// reusedMark names the file that marks a stage of the second cache as a copy: the
// stage proves nothing, and is removed by a run that does not reuse it. The name
// is the one that existing caches contain.
const reusedMark = "taken"

// seedCache copies the source, the downloads and the reused stages into the
// second cache, and removes stages from it that no longer prove anything.
func (s *Session) seedCache(reuse []string) error {
	from, to := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")
	if err := ensureWork(s.secondCache()); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	reuse = append(slices.Clip(reuse), "source", "package", "ui-packages")
	reused := func(name string) bool {
		return slices.ContainsFunc(reuse, func(r string) bool { return strings.HasPrefix(name, r+"-") })
	}
	have, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range have {
		dir := filepath.Join(to, e.Name())
		if e.IsDir() && stage.Owns(dir) && (!exists(filepath.Join(from, e.Name())) || exists(filepath.Join(dir, reusedMark)) && !reused(e.Name())) {
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
		if !finished || !reused(e.Name()) || exists(filepath.Join(to, e.Name())) {
			continue
		}
		if err := copyStage(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("copy the stage %s: %w", e.Name(), err)
		}
	}
	return nil
}

// copyStage copies a stage with its modes, which are compared too, and marks the
// copy. An interrupted copy is not a stage.
func copyStage(from, to string) error {
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
	if err := os.WriteFile(filepath.Join(work, reusedMark), nil, 0o600); err != nil {
		return err
	}
	return stage.Finalize(work, to)
}

// copyModes copies the modes of all files to a copy of the tree: os.CopyFS
// applies the umask.
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

// secondBuild runs `mage release` in another checkout and varies everything that
// must not matter: umask, user name, home directory, locale, time zone, host
// name, number of jobs and processors, unrelated variables, and in containers
// the variations of the engine.
func (s *Session) secondBuild(ctx context.Context, checkout, work, published string) error {
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
	cmd.Dir, cmd.Stdout, cmd.Stderr = checkout, s.Out, s.Out
	cmd.Env = append(os.Environ(), s.variations(work, modules, published)...)
	return procgroup.Run(ctx, cmd, shutdownGrace)
}

// variations returns the environment of the second build, in addition to that of
// the first. Paths that were relative to the first checkout are absolute in it.
func (s *Session) variations(work, modules, published string) []string {
	return append(s.Settings.Paths(),
		"HOME="+work, "USER=somebody", "LOGNAME=somebody", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "TZ=Pacific/Kiritimati",
		"GOROCM_CACHE="+s.secondCache(), "GOROCM_DIST=dist", "GOROCM_VARY=true", "GOROCM_REPRODUCE=never", "GOROCM_JOBS="+strconv.Itoa(s.Settings.Jobs+1),
		"GOROCM_PUBLISHED="+published,
		"GOMODCACHE="+modules, "GOCACHE="+filepath.Join(s.secondCache(), "go-build"), "MAGEFILE_CACHE="+filepath.Join(work, "magefile"),
		"GOMAXPROCS="+strconv.Itoa(runtime.NumCPU()+1),
		"CFLAGS=-O0", "CXXFLAGS=-g", "LDFLAGS=-s", "MAKEFLAGS=-j7", "NOISE="+strings.Repeat("noise", 1000))
}

// shutdownGrace is how long an interrupted build or test run may take to stop its
// containers and servers and to remove unfinished files.
const shutdownGrace = 30 * time.Second
