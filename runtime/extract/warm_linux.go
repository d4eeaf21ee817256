package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func sealName(digest string) string { return digest + ".seal" }

// errStale says that the folder needs a closer look; it never leaves here.
var errStale = errors.New("bundle folder does not fit its seal")

// readSeal reads the record of a bundle.
func (s *store) readSeal(digest string) (*seal, error) {
	f, err := s.openNoFollow(sealName(digest), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxSealSize {
		return nil, fmt.Errorf("%w: not a file of its kind", errSeal)
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errSeal, err)
	}
	rec, err := parseSeal(b)
	if err != nil {
		return nil, err
	}
	if rec.digest != digest {
		return nil, fmt.Errorf("%w: it is another bundle's", errSeal)
	}
	return rec, nil
}

// warm checks the folder against its seal without reading content or taking
// the lock. It returns the targets that are there, or an error wrapping
// errStale.
func (s *store) warm(digest string, want []gfx.Target) ([]gfx.Target, error) {
	rec, err := s.readSeal(digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	for _, t := range want {
		if !slices.Contains(rec.targets, t) {
			return nil, fmt.Errorf("%w: target %s is not there yet", errStale, t)
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

// statEntry describes a path below the folder fd; "." is the folder itself.
func statEntry(fd int, path string) (sealEntry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return sealEntry{}, err
	}
	return sealEntry{
		path: path, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR,
		size: st.Size, inode: st.Ino, mode: st.Mode, uid: st.Uid,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}, nil
}

// writeSeal records the folder as it is now. Its caller has just hashed every
// file of these targets.
func (s *store) writeSeal(ctx context.Context, m *bundle.Manifest, digest string, targets []gfx.Target) error {
	dir, err := s.openNoFollow(digest, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	rec := seal{digest: digest, targets: targets}
	var newest int64
	for _, path := range sealPaths(m, targets) {
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
	if err := settle(ctx, newest, coarseNow); err != nil {
		return err
	}
	return s.replaceFile(sealName(digest), rec.encode())
}

// tick bounds a tick of the kernel's coarse clock: 10 ms where HZ is 100.
const tick = 10 * time.Millisecond

// settle waits until the tick of the kernel's coarse clock is over in which a
// file changed last: another change in it would leave the change time as it is.
// A time that lies further ahead is of a clock that was set back, or of another
// machine's: it says nothing of now, and two ticks of any clock must do.
func settle(ctx context.Context, newest int64, now func() int64) error {
	for waited := time.Duration(0); now() <= newest && waited < 2*tick; waited += time.Millisecond {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// coarseNow is the clock that file times are taken from.
func coarseNow() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}

// sealPaths lists what a seal records: the folders, the manifest and the
// files of the targets.
func sealPaths(m *bundle.Manifest, targets []gfx.Target) []string {
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

// replaceFile writes a file of the store anew: beside it, synced, renamed.
func (s *store) replaceFile(name string, b []byte) error {
	tmp := name + ".new"
	if err := s.root.RemoveAll(tmp); err != nil {
		return err
	}
	f, err := s.openNoFollow(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.renameOver(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp) // the first error is the one to report
		return err
	}
	return s.handle.Sync()
}

// renameOver gives a file its name. What has the name goes, a folder too.
func (s *store) renameOver(from, to string) error {
	if st, err := s.statNoFollow(to); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := s.root.RemoveAll(to); err != nil {
			return err
		}
	}
	return s.root.Rename(from, to)
}

// syncTree makes the names in a folder and the folders below it durable. synced is
// told each folder.
func syncTree(root *os.Root, synced func(path string)) error {
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		f, err := root.Open(p)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		synced(p)
		return nil
	})
}
