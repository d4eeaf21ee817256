// Package extract turns a packed bundle into an installed folder that the
// server can be started from, and keeps that folder right.
//
// The folder lives in a cache under the bundle's content address. Extraction
// happens in a stage beside it: files are hashed while they are written, made
// durable, and the stage is renamed into place without replacing anything. A
// lock that the kernel frees when its holder dies keeps processes from doing
// the work twice; it is not what makes the result right, the rename is.
//
// A sealed record beside the folder holds size, times, inode, mode and owner
// of every file. A warm start compares that record and reads no content. What
// differs is hashed; what is damaged, missing or foreign is put right from
// the pack, by renaming whole files, so that a running server keeps the files
// it has mapped.
//
// Only the core files and those of the GPU targets asked for are written, and
// for a single target files with code for several have holes where the others'
// is (see bundle.Part). A later call adds other targets, with new files in the
// place of those with holes.
//
// A new bundle does not replace an old one: each has its own folder. Prune
// removes those that were not used for long, and an install those of its name;
// a shared lock, which children inherit, keeps what is in use.
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

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// CacheEnv names the environment variable with the cache folder.
const CacheEnv = "GOROCM_CACHE"

// Options tune Extract. The zero value uses the user's cache folder and takes
// all targets.
type Options struct {
	// CacheDir is the cache folder. Empty: $GOROCM_CACHE, else a go-rocm
	// folder in the user's cache, with fallbacks where that cannot hold
	// programs. It is made when it is not there.
	CacheDir string
	// Targets are the GPU targets whose files are wanted beside the core
	// files. Nil takes all, an empty slice the core files alone.
	Targets []gfx.Target
	// Lease keeps the bundle from being removed by Prune until Installed.Lease is
	// released, or all who inherited it have ended. Whoever starts a program of
	// the bundle wants it.
	Lease bool
	// Log gets what is repaired, swept away or fallen back to; nil is silent.
	Log *slog.Logger
	// Progress is told bytes written and bytes to write, never by two
	// goroutines at a time. A warm start does not call it.
	Progress func(done, total int64)

	// trace is told each step of the slow path, from "stale" on; tests stop or
	// kill there.
	trace func(step string)
	// synced is told each folder whose names were made durable.
	synced func(path string)
}

// Installed is a bundle folder that a server can be started from.
type Installed struct {
	// Dir is the absolute path of the bundle folder.
	Dir string
	// Manifest describes it; callers must not change it.
	Manifest *bundle.Manifest
	// Targets are those whose files are in the folder, sorted.
	Targets []gfx.Target
	// Changed is true when this call wrote or repaired files.
	Changed bool
	// Lease is set where Options.Lease asked for it; the caller releases it.
	Lease *Lease
}

// Command returns the first arguments of the server's command line: the
// loader with its library path and the program, or the program alone where
// the bundle brings no loader. The child's working folder must be Dir. more are
// folders of the host in which libraries are looked for after Dir; they hold
// neither colon nor semicolon, at which the loader would part them.
func (i *Installed) Command(more ...string) []string {
	program := filepath.Join(i.Dir, filepath.FromSlash(i.Manifest.Entry.Program))
	if i.Manifest.Entry.Loader == "" {
		return []string{program}
	}
	folders := strings.Join(append([]string{i.Dir}, more...), ":")
	return []string{filepath.Join(i.Dir, filepath.FromSlash(i.Manifest.Entry.Loader)), "--library-path", folders, program}
}

// Sentinels for what can be wrong with a place. Errors wrap them and say what
// to do.
var (
	// ErrNoCache: there is no folder to put the cache in.
	ErrNoCache = errors.New("no cache folder")
	// ErrNoExec: the file system does not run programs.
	ErrNoExec = errors.New("file system is mounted noexec")
	// ErrReadOnly: the cache cannot be written and lacks the bundle.
	ErrReadOnly = errors.New("cache cannot be written")
	// ErrUnsafe: the place belongs to, or can be changed by, somebody else.
	ErrUnsafe = errors.New("cache folder is not safe")
	// ErrBusy: another process holds a program of the bundle open for writing.
	ErrBusy = errors.New("program file is held open for writing")
	// ErrTooManyFiles: this process or the system has no file descriptor left.
	ErrTooManyFiles = errors.New("too many open files")
	// ErrDisk: the disk reports an input/output error.
	ErrDisk = errors.New("disk error")
	// ErrTarget: the bundle has no code for a GPU target that was asked for.
	ErrTarget = errors.New("bundle has no code for this target")
)

// SpaceError says that a file system has too little room.
type SpaceError struct {
	// Dir is on the file system that is full.
	Dir string
	// Resource is "bytes", "inodes" or "quota".
	Resource string
	// Need is what the files take, in bytes or inodes; Have is what is left,
	// -1 when the system does not tell (a quota).
	Need, Have int64
	// Err is the system's error, nil if it was seen before writing.
	Err error
}

// Error says how much is needed and what to do.
func (e *SpaceError) Error() string {
	const remedy = "free some, or set " + CacheEnv + " to a folder on a larger disk"
	switch {
	case e.Resource == "inodes":
		return fmt.Sprintf("not enough inodes for %s: %d files to write, %d inodes free; %s", e.Dir, e.Need, e.Have, remedy)
	case e.Have < 0:
		return fmt.Sprintf("disk quota reached in %s: %s needed; %s", e.Dir, mebibytes(e.Need), remedy)
	}
	if e.Err != nil && e.Have >= e.Need {
		return fmt.Sprintf("disk of %s says that it is full (%v) though %s of the %s needed seem free; %s", e.Dir, e.Err, mebibytes(e.Have), mebibytes(e.Need), remedy)
	}
	return fmt.Sprintf("not enough space in %s: %s needed, %s free; %s", e.Dir, mebibytes(e.Need), mebibytes(e.Have), remedy)
}

// Unwrap returns the system's error.
func (e *SpaceError) Unwrap() error { return e.Err }

func mebibytes(n int64) string {
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// Extract makes sure that the bundle is installed in the cache, whole and for
// the targets asked for, and returns it. A warm start costs one lstat a file.
// Several processes and goroutines may call it at once.
func Extract(ctx context.Context, r *bundle.Reader, o Options) (*Installed, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	targets, err := chooseTargets(r.Manifest(), o.Targets)
	if err != nil {
		return nil, err
	}
	places, err := findPlaces(o.CacheDir, os.Getenv, passwdHome)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, p := range places {
		inst, err := installAt(ctx, r, p, targets, o)
		if err == nil {
			return inst, nil
		}
		errs = append(errs, err)
		if !tryElsewhere(err) || i == len(places)-1 {
			break
		}
		o.Log.Warn("cache folder cannot be used, trying the next", "dir", p.dir, "error", err, "next", places[i+1].dir)
	}
	return nil, fmt.Errorf("install bundle %s: %w", r.Manifest().Name, errors.Join(errs...))
}

// tryElsewhere tells errors of a place from those that go with us anywhere.
func tryElsewhere(err error) bool {
	var space *SpaceError
	return errors.As(err, &space) || errors.Is(err, ErrNoExec) || errors.Is(err, ErrReadOnly) ||
		errors.Is(err, ErrUnsafe) || errors.Is(err, ErrDisk)
}

// chooseTargets checks the targets asked for against the bundle's.
func chooseTargets(m *bundle.Manifest, asked []gfx.Target) ([]gfx.Target, error) {
	if asked == nil {
		return slices.Clone(m.Targets), nil
	}
	out := make([]gfx.Target, 0, len(asked))
	for _, t := range asked {
		if !slices.Contains(m.Targets, t) {
			return nil, fmt.Errorf("%w: %s is wanted, %s has %s", ErrTarget, t, m.Name, orNone(gfx.Join(m.Targets, ", ")))
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

// OpenInstalled opens a bundle folder that is already unpacked, such as
// /usr/lib/go-rocm/llama. It checks type, size and mode of every file; of the
// content it only looks whose code is in files with code for several targets:
// bundle.Verify reads it. Files of a target may be missing if all of them are.
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
	there := make(map[gfx.Target]bool)
	var diffs []bundle.Difference
	for _, f := range m.Files {
		d, ok := bundle.StatFile(root, f)
		switch {
		case ok:
			there[f.Target] = true
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
		case there[t]: // some are, some are not
			diffs = append(diffs, missing[t]...)
		}
	}
	if len(diffs) > 0 {
		return nil, fmt.Errorf("open installed bundle: %w; install it again", &bundle.VerifyError{Dir: abs, Differences: diffs})
	}
	return inst, nil
}

// hasCode reports whether no file has holes where the target's code belongs.
func hasCode(root *os.Root, m *bundle.Manifest, t gfx.Target) (bool, error) {
	for i := range m.Files {
		if ok, err := m.Files[i].HasCode(root, t); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}
