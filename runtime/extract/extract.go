// Package extract installs a packed bundle in a cache directory, from which the
// server can be started, and verifies and repairs it on later calls.
//
// # Installation
//
// A bundle's directory in the cache is named by its content address. Extract
// unpacks into a stage, a directory beside it: files are hashed while they are
// written, and synced. Then the stage is renamed, replacing nothing. A lock keeps
// processes from doing the same work twice; the kernel releases it when its holder
// exits. Correctness depends on the rename alone, not on the lock.
//
// # Verification and repair
//
// A stamp beside the directory records size, times, inode, mode and owner of every
// file. With an installed bundle, Extract compares the stamp and reads no content.
// Files that differ from the stamp are hashed. Files that are damaged or missing
// are replaced from the pack, by renaming whole files, so that a running server
// keeps the files it has mapped; foreign files are removed.
//
// # Targets
//
// Only the core files and those of the requested GPU targets are written. For a
// single target, files with code for several have holes in place of the others'
// code (see bundle.Part). A later call adds other targets, and replaces files that
// have holes.
//
// # Removal
//
// Each bundle has its own directory, so a new bundle does not replace an old one.
// Prune removes bundles that have not been used for long, and so does the
// installation of a bundle with the same name. A [Lease], which children inherit,
// protects a bundle in use.
//
// The package starts no process (see runtime/supervise) and does not choose
// targets (see runtime/gpu).
package extract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// CacheEnv is the environment variable with the cache directory.
const CacheEnv = userdirs.EnvCache

// Options configure Extract. The zero value uses the user's cache directory and all
// targets.
type Options struct {
	// CacheDir is the cache directory, which is created if necessary. Empty means
	// $GOROCM_CACHE, else the directory go-rocm in the user's cache, with
	// fallbacks if programs cannot run there.
	CacheDir string
	// Targets are the GPU targets whose files are installed besides the core
	// files. Nil means all targets, an empty slice the core files alone.
	Targets []gfx.Target
	// Lease requests Installed.Lease, which protects the bundle from Prune. Set it
	// to start a program of the bundle.
	Lease bool
	// Log receives repairs, removals and fallbacks; nil disables it.
	Log *slog.Logger
	// Progress, if not nil, is called with the bytes written so far and in total,
	// never by two goroutines at a time. It is not called if nothing is written.
	Progress func(done, total int64)

	// trace is called at each step of an installation or repair, beginning with
	// "stale"; tests stop or exit there.
	trace func(step string)
	// synced is called with each directory that was synced.
	synced func(path string)
}

// Installed is a bundle directory from which a server can be started.
type Installed struct {
	// Dir is the absolute path of the bundle directory.
	Dir string
	// Manifest describes it; callers must not change it.
	Manifest *bundle.Manifest
	// Targets are the targets whose files are installed, sorted.
	Targets []gfx.Target
	// Changed is true when this call wrote or repaired files.
	Changed bool
	// Lease is set if Options.Lease was; the caller releases it.
	Lease *Lease
}

// Command returns the first arguments of the server's command line: the loader with
// its library path and the program, or the program alone if the bundle has no
// loader. The child's working directory must be Dir. more are directories of the
// host that the loader searches after Dir. They must not contain a colon or
// semicolon, which the loader treats as separators.
func (i *Installed) Command(more ...string) []string {
	program := filepath.Join(i.Dir, filepath.FromSlash(i.Manifest.Entry.Program))
	if i.Manifest.Entry.Loader == "" {
		return []string{program}
	}
	path := strings.Join(append([]string{i.Dir}, more...), ":")
	return []string{filepath.Join(i.Dir, filepath.FromSlash(i.Manifest.Entry.Loader)), "--library-path", path, program}
}

// Sentinel errors. The errors that wrap them name the remedy.
var (
	// ErrNoCache: no directory can be used as the cache.
	ErrNoCache = errors.New("no cache directory")
	// ErrNoExec: the file system does not allow running programs.
	ErrNoExec = errors.New("file system is mounted noexec")
	// ErrReadOnly: the cache is not writable and does not contain the bundle.
	ErrReadOnly = errors.New("cache is not writable")
	// ErrUnsafe: the directory belongs to, or is writable by, another user.
	ErrUnsafe = errors.New("cache directory is not safe")
	// ErrBusy: another process has a program of the bundle open for writing.
	ErrBusy = errors.New("program file is open for writing")
	// ErrTooManyFiles: this process or the system has no file descriptors left.
	ErrTooManyFiles = errors.New("too many open files")
	// ErrDisk: the disk reports an input/output error.
	ErrDisk = errors.New("disk error")
	// ErrTarget: the bundle has no code for a requested GPU target.
	ErrTarget = errors.New("bundle has no code for this target")
)

// SpaceError means that a file system has too little free space.
type SpaceError struct {
	// Dir is on the file system that is full.
	Dir string
	// Resource is "bytes", "inodes" or "quota".
	Resource string
	// Need is the required amount, in bytes or inodes; Have is the free amount, -1
	// if unknown (a quota).
	Need, Have int64
	// Err is the system's error, nil if the check before writing failed.
	Err error
}

// Error returns the required and the free amount, and the remedy.
func (e *SpaceError) Error() string {
	const remedy = "free some, or set " + CacheEnv + " to a directory on a larger disk"
	switch {
	case e.Resource == "inodes":
		return fmt.Sprintf("not enough inodes for %s: %d files to write, %d inodes free; %s", e.Dir, e.Need, e.Have, remedy)
	case e.Have < 0:
		return fmt.Sprintf("disk quota reached in %s: %s needed; %s", e.Dir, mebibytes(e.Need), remedy)
	}
	if e.Err != nil && e.Have >= e.Need {
		return fmt.Sprintf("disk of %s reports that it is full (%v), although %s are free and %s are needed; %s", e.Dir, e.Err, mebibytes(e.Have), mebibytes(e.Need), remedy)
	}
	return fmt.Sprintf("not enough space in %s: %s needed, %s free; %s", e.Dir, mebibytes(e.Need), mebibytes(e.Have), remedy)
}

// Unwrap returns the system's error.
func (e *SpaceError) Unwrap() error { return e.Err }

func mebibytes(n int64) string {
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// Extract ensures that the bundle is installed in the cache, undamaged and for the
// requested targets, and returns it. If it is, Extract costs one lstat for each
// file. Several processes and goroutines may call it at once.
func Extract(ctx context.Context, r *bundle.Reader, o Options) (*Installed, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	targets, err := checkTargets(r.Manifest(), o.Targets)
	if err != nil {
		return nil, err
	}
	locations, err := findLocations(o.CacheDir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, p := range locations {
		inst, err := installAt(ctx, r, p, targets, o)
		if err == nil {
			return inst, nil
		}
		errs = append(errs, err)
		if !canTryNext(err) || i == len(locations)-1 {
			break
		}
		o.Log.Warn("cache directory cannot be used, trying the next one", "dir", p.dir, "error", err, "next", locations[i+1].dir)
	}
	return nil, fmt.Errorf("install bundle %s: %w", r.Manifest().Name, errors.Join(errs...))
}

// canTryNext reports whether err is about one location, so that the next one may
// work.
func canTryNext(err error) bool {
	var space *SpaceError
	return errors.As(err, &space) || errors.Is(err, ErrNoExec) || errors.Is(err, ErrReadOnly) ||
		errors.Is(err, ErrUnsafe) || errors.Is(err, ErrDisk)
}

// checkTargets compares the requested targets with those of the bundle.
func checkTargets(m *bundle.Manifest, asked []gfx.Target) ([]gfx.Target, error) {
	if asked == nil {
		return slices.Clone(m.Targets), nil
	}
	out := make([]gfx.Target, 0, len(asked))
	for _, t := range asked {
		if !slices.Contains(m.Targets, t) {
			return nil, fmt.Errorf("%w: %s was requested, %s has %s", ErrTarget, t, m.Name, orNone(gfx.Join(m.Targets, ", ")))
		}
		out = append(out, t)
	}
	gfx.Sort(out)
	return slices.Compact(out), nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// OpenInstalled opens a bundle directory that is already unpacked, such as
// /usr/lib/go-rocm/llama. It compares type, size and mode of every file. It does not
// verify the content, as bundle.Verify does, but finds out for which targets files
// with parts have code. The files of a target may be missing if all of them are.
func OpenInstalled(dir string) (*Installed, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open installed bundle: %w", err)
	}
	m, err := bundle.ReadManifest(abs)
	if err != nil {
		return nil, fmt.Errorf("open installed bundle %s: %w", abs, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("open installed bundle: %w", err)
	}
	defer func() { _ = root.Close() }()

	missing := make(map[gfx.Target][]bundle.Difference)
	present := make(map[gfx.Target]bool)
	var diffs []bundle.Difference
	for _, f := range m.Files {
		d, ok := bundle.StatFile(root, f)
		switch {
		case ok:
			present[f.Target] = true
		case d.Kind == bundle.Missing && f.Target != "":
			missing[f.Target] = append(missing[f.Target], d)
		default:
			diffs = append(diffs, d)
		}
	}
	inst := &Installed{Dir: abs, Manifest: m}
	for _, t := range m.Targets {
		switch {
		case len(missing[t]) == 0:
			ok, err := hasCode(root, m, t)
			if err != nil {
				return nil, fmt.Errorf("open installed bundle: %w", err)
			}
			if ok {
				inst.Targets = append(inst.Targets, t)
			}
		case present[t]: // some files are missing
			diffs = append(diffs, missing[t]...)
		}
	}
	if len(diffs) > 0 {
		return nil, fmt.Errorf("open installed bundle: %w; install it again", &bundle.VerifyError{Dir: abs, Differences: diffs})
	}
	return inst, nil
}

// hasCode reports whether all files with parts have the target's code.
func hasCode(root *os.Root, m *bundle.Manifest, t gfx.Target) (bool, error) {
	for i := range m.Files {
		if ok, err := m.Files[i].HasCode(root, t); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}
