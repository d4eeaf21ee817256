package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func stampName(digest string) string { return digest + ".stamp" }

// errStale means that the bundle must be verified. Extract never returns it.
var errStale = errors.New("bundle directory does not match its stamp")

// readStamp reads the stamp of a bundle.
func (s *store) readStamp(digest string) (*stamp, error) {
	f, err := s.openNoFollow(stampName(digest), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxStampSize {
		return nil, fmt.Errorf("%w: not a regular file, or too large", errStamp)
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errStamp, err)
	}
	rec, err := parseStamp(b)
	if err != nil {
		return nil, err
	}
	if rec.digest != digest {
		return nil, fmt.Errorf("%w: it belongs to another bundle", errStamp)
	}
	return rec, nil
}

// checkFast compares the bundle's directory with its stamp, without reading content
// or acquiring the lock. It returns the installed targets, or an error wrapping
// errStale.
func (s *store) checkFast(digest string, want []gfx.Target) ([]gfx.Target, error) {
	rec, err := s.readStamp(digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	for _, t := range want {
		if !slices.Contains(rec.targets, t) {
			return nil, fmt.Errorf("%w: target %s is not installed", errStale, t)
		}
	}
	dir, err := s.openNoFollow(digest, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	defer func() { _ = dir.Close() }()
	fd := int(dir.Fd())
	for i := range rec.entries {
		e := &rec.entries[i]
		now, err := statEntry(fd, e.path)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errStale, e.path, err)
		}
		if e.dir {
			now.size = e.size
		}
		if now != *e {
			return nil, fmt.Errorf("%w: %s changed", errStale, e.path)
		}
	}
	return rec.targets, nil
}

// statEntry returns the entry for a path below the directory fd; "." is the directory
// itself.
func statEntry(fd int, path string) (stampEntry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stampEntry{}, err
	}
	return stampEntry{
		path: path, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR,
		size: st.Size, inode: st.Ino, mode: st.Mode, uid: st.Uid,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}, nil
}

// writeStamp stamps the directory in its current state. The caller has just hashed
// every file of these targets.
func (s *store) writeStamp(ctx context.Context, m *bundle.Manifest, digest string, targets []gfx.Target) error {
	dir, err := s.openNoFollow(digest, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	rec := stamp{digest: digest, targets: targets}
	var newest int64
	for _, path := range stampPaths(m, targets) {
		e, err := statEntry(int(dir.Fd()), path)
		if err != nil {
			return &fs.PathError{Op: "lstat", Path: filepath.Join(s.dir, digest, path), Err: err}
		}
		if e.dir {
			e.size = 0
		}
		newest = max(newest, e.ctime)
		rec.entries = append(rec.entries, e)
	}
	if err := waitTick(ctx, newest, coarseNow); err != nil {
		return err
	}
	return s.replaceFile(stampName(digest), rec.encode())
}

// tick is the longest tick of the kernel's coarse clock: 10 ms if HZ is 100.
const tick = 10 * time.Millisecond

// waitTick waits for the end of the tick of the kernel's coarse clock in which a file
// last changed: another change in that tick would not alter the change time. If the
// change time is in the future, because the clock was set back or belongs to another
// machine, waitTick waits for two ticks.
func waitTick(ctx context.Context, newest int64, now func() int64) error {
	for waited := time.Duration(0); now() <= newest && waited < 2*tick; waited += time.Millisecond {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// coarseNow returns the time of the clock that the kernel uses for file times.
func coarseNow() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}

// stampPaths returns the paths of a stamp: the directories, the manifest and the files
// of the targets.
func stampPaths(m *bundle.Manifest, targets []gfx.Target) []string {
	want := bundle.ForTargets(append([]gfx.Target{}, targets...))
	dirs := map[string]bool{".": true}
	files := []string{bundle.ManifestName}
	for _, f := range m.Files {
		if !want(f) {
			continue
		}
		files = append(files, f.Path)
		for d := filepath.Dir(f.Path); !dirs[d]; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	out := make([]string, 0, len(files)+len(dirs))
	for d := range dirs {
		out = append(out, d)
	}
	slices.Sort(out)
	return append(out, files...)
}
