package extract

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// attempts bounds how often an install begins again after the cache was
// removed under it or descriptors ran out.
const attempts = 5

// job is one call of Extract at one place.
type job struct {
	*store
	r       *bundle.Reader
	m       *bundle.Manifest
	digest  string
	targets []gfx.Target
	o       Options
	spare   reserve
}

// reserve holds descriptors that cleaning up will need: when they run out in
// the middle of an install, removing the stage takes some too.
type reserve []int

// spareDescriptors cover a walk down the deepest bundle and the seal.
const spareDescriptors = 10

func (j *job) fillReserve() error {
	for len(j.spare) < spareDescriptors {
		fd, err := unix.FcntlInt(j.handle.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			j.freeReserve()
			return fmt.Errorf("reserve descriptors: %w", err)
		}
		j.spare = append(j.spare, fd)
	}
	return nil
}

func (j *job) freeReserve() {
	for _, fd := range j.spare {
		_ = unix.Close(fd) // a duplicate that nothing was written to
	}
	j.spare = nil
}

// installAt makes sure the bundle is in that place, beginning again when the
// ground moves.
func installAt(ctx context.Context, r *bundle.Reader, p place, targets []gfx.Target, o Options) (*Installed, error) {
	var err error
	for try := range attempts {
		if try > 0 {
			o.Log.Warn("installing the bundle again", "dir", p.dir, "try", try+1, "error", err)
			select {
			case <-ctx.Done():
				return nil, errors.Join(context.Cause(ctx), err)
			case <-time.After(20 * time.Millisecond << try):
			}
		}
		var inst *Installed
		if inst, err = installOnce(ctx, r, p, targets, o); err == nil {
			return inst, nil
		}
		if !errors.Is(err, errSwept) && !errors.Is(err, ErrTooManyFiles) {
			return nil, err
		}
	}
	return nil, err
}

func installOnce(ctx context.Context, r *bundle.Reader, p place, targets []gfx.Target, o Options) (*Installed, error) {
	s, err := openStore(p)
	if err != nil {
		return nil, explain(err)
	}
	defer func() { _ = s.close() }()
	j := &job{store: s, r: r, m: r.Manifest(), digest: r.Digest(), targets: targets, o: o}
	if j.o.trace == nil {
		j.o.trace = func(string) {}
	}
	if err := s.checkExec(); err != nil {
		return nil, err
	}
	have, err := s.warm(j.digest, targets)
	if err == nil {
		return j.installed(have, false), nil
	}
	o.Log.Debug("bundle is not ready", "dir", s.dir, "reason", err)
	inst, err := j.slow(ctx)
	if err != nil && s.gone() && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errSwept, err)
	}
	if err != nil {
		return nil, explain(err)
	}
	return inst, nil
}

func (j *job) installed(targets []gfx.Target, fresh bool) *Installed {
	return &Installed{Dir: filepath.Join(j.dir, j.digest), Manifest: j.m, Targets: targets, Fresh: fresh}
}

// slow installs, completes or repairs the bundle under the lock.
func (j *job) slow(ctx context.Context) (*Installed, error) {
	l, err := j.acquire(ctx, j.digest, j.o.Log)
	if unwritable(err) || j.readOnly {
		return j.readOnlyCheck(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	defer l.release()
	j.o.trace("locked")
	// Whoever held the lock before may have done the work.
	if have, err := j.warm(j.digest, j.targets); err == nil {
		return j.installed(have, false), nil
	}
	if err := j.fillReserve(); err != nil {
		return nil, err
	}
	defer j.freeReserve()
	j.sweep(l)
	if err := j.clearGoal(); err != nil {
		return nil, err
	}
	var fresh bool
	have := j.targets
	if _, err := j.statNoFollow(j.digest); errors.Is(err, fs.ErrNotExist) {
		fresh = true
		if err := j.install(ctx); err != nil {
			return nil, err
		}
	} else if fresh, have, err = j.repair(ctx); err != nil {
		return nil, err
	}
	j.freeReserve()
	if err := j.waitWriters(ctx); err != nil {
		return nil, err
	}
	if err := j.writeSeal(j.m, j.digest, have); err != nil {
		return nil, j.spaceError(err, 0, 1)
	}
	j.o.trace("sealed")
	return j.installed(have, fresh), nil
}

func unwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

// readOnlyCheck is what is left where nothing can be written: a bundle that
// is there and hashes right will do, sealed or not.
func (j *job) readOnlyCheck(ctx context.Context, cause error) (*Installed, error) {
	err := bundle.VerifySelected(ctx, filepath.Join(j.dir, j.digest), j.m, bundle.ForTargets(j.targets))
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not hold the bundle, whole and for the targets wanted; set %s to a folder that can be written: %w",
			ErrReadOnly, j.dir, CacheEnv, errors.Join(cause, err))
	}
	j.o.Log.Warn("cache cannot be written, every start hashes the bundle", "dir", j.dir)
	return j.installed(j.targets, false), nil
}

// clearGoal removes what stands where the bundle's folder must be and is no
// folder: only we write here, so it was planted or is an accident.
func (j *job) clearGoal() error {
	st, err := j.statNoFollow(j.digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		j.o.Log.Warn("removing what stands in the bundle's place", "path", filepath.Join(j.dir, j.digest))
		return j.root.Remove(j.digest)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to user %d; remove it", ErrUnsafe, filepath.Join(j.dir, j.digest), st.Uid)
	case st.Mode&0o7777 != 0o700:
		return j.root.Chmod(j.digest, 0o700)
	}
	return nil
}

func stagePrefix(digest string) string { return digest + ".stage-" }

// stage writes the selected files into a new folder beside the goal. It
// returns the folder's name; on an error nothing is left of it.
func (j *job) stage(ctx context.Context, want func(bundle.File) bool, manifest bool) (string, error) {
	need, inodes := j.r.Need(want)
	need += int64(len(j.r.ManifestBytes())) + 64<<10 // folders, seal and lock
	inodes += 16
	if err := j.checkSpace(need, inodes); err != nil {
		return "", err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	name := stagePrefix(j.digest) + hex.EncodeToString(id[:])
	err := j.root.Mkdir(name, 0o700)
	if err == nil {
		err = j.fillStage(ctx, name, want, manifest)
	}
	if err == nil {
		return name, nil
	}
	err = j.spaceError(err, need, inodes)
	j.freeReserve()
	if rerr := j.root.RemoveAll(name); rerr != nil {
		j.o.Log.Warn("stage is left behind", "name", name, "error", rerr)
	}
	return "", err
}

func (j *job) fillStage(ctx context.Context, name string, want func(bundle.File) bool, manifest bool) error {
	root, err := j.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	j.o.trace("staged")
	err = j.r.Extract(ctx, root, bundle.ExtractOptions{
		Select: want, Sync: true, DirMode: 0o700, Guard: j.guard, Progress: j.o.Progress,
	})
	if err == nil && manifest {
		err = j.r.WriteManifest(root, true)
	}
	if err != nil {
		return err
	}
	j.o.trace("extracted")
	if err := syncTree(root); err != nil {
		return err
	}
	j.o.trace("synced")
	return nil
}

// guard keeps this process from forking while a program that somebody will
// start is open for writing: the child would hold the descriptor until its
// own exec, and a start in that moment fails with ETXTBSY. Libraries are
// mapped, not executed, and need no guard.
func (j *job) guard(f bundle.File) func() {
	if f.Mode&0o111 == 0 || (f.Path != j.m.Entry.Loader && f.Path != j.m.Entry.Program && strings.Contains(filepath.Base(f.Path), ".so")) {
		return func() {}
	}
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}

// install stages the bundle and gives it its name.
func (j *job) install(ctx context.Context) error {
	name, err := j.stage(ctx, bundle.ForTargets(j.targets), true)
	if err != nil {
		return err
	}
	err = j.renameNoReplace(name, j.digest)
	if errors.Is(err, fs.ErrExist) {
		// Somebody without our lock was faster. What is there is checked
		// against the manifest like any other find.
		j.o.Log.Warn("another install took the name first", "digest", j.digest)
		if err := j.root.RemoveAll(name); err != nil {
			return err
		}
		_, _, err := j.repair(ctx)
		return err
	}
	if err != nil {
		return errors.Join(err, j.root.RemoveAll(name))
	}
	j.o.trace("renamed")
	if err := j.handle.Sync(); err != nil {
		return fmt.Errorf("sync cache folder: %w", err)
	}
	j.o.trace("folder synced")
	j.o.Log.Info("installed bundle", "dir", filepath.Join(j.dir, j.digest), "targets", gfx.Join(j.targets, ","))
	return nil
}

func (s *store) renameNoReplace(from, to string) error {
	err := unix.Renameat2(s.fd(), from, s.fd(), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system lacks the flag. A rename of a folder replaces an
		// empty folder at most, so nothing of value is lost.
		err = unix.Renameat(s.fd(), from, s.fd(), to)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = unix.EEXIST
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(s.dir, from), New: filepath.Join(s.dir, to), Err: err}
	}
	return nil
}

// sweep removes stages that nobody will finish: those of our own bundle,
// whose lock we hold, and those of others whose lock is free.
func (j *job) sweep(l *lock) {
	if !l.held {
		return
	}
	entries, err := fs.ReadDir(j.root.FS(), ".")
	if err != nil {
		return // not what we are here for; the next step reports it
	}
	for _, e := range entries {
		digest, _, ok := strings.Cut(e.Name(), ".stage-")
		if !ok || len(digest) != 2*32 {
			continue
		}
		if digest != j.digest {
			other, err := j.tryLock(digest)
			if err != nil || other == nil {
				continue
			}
			if !other.held {
				other.release()
				continue
			}
			defer other.release()
		}
		j.o.Log.Info("removing an abandoned stage", "name", e.Name())
		if err := j.root.RemoveAll(e.Name()); err != nil {
			j.o.Log.Warn("abandoned stage cannot be removed", "name", e.Name(), "error", err)
		}
	}
}

// waitWriters waits until nobody holds the programs of the bundle open for
// writing, ours included: a child forked while another goroutine wrote one
// keeps the descriptor until its exec. A read lease is only granted then.
func (j *job) waitWriters(ctx context.Context) error {
	for _, path := range []string{j.m.Entry.Loader, j.m.Entry.Program} {
		if path == "" {
			continue
		}
		wait := time.Millisecond
		for waited := time.Duration(0); ; waited += wait {
			free, err := j.leaseFree(path)
			if err != nil {
				return err
			}
			if free {
				break
			}
			if waited > 2*time.Second {
				return fmt.Errorf("%w: %s; find the writer with: fuser -v %s", ErrBusy, path, filepath.Join(j.dir, j.digest, path))
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(wait):
			}
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
	return nil
}

// leaseFree reports whether the file has no writer. File systems without
// leases give the benefit of the doubt.
func (j *job) leaseFree(path string) (bool, error) {
	f, err := j.openNoFollow(filepath.Join(j.digest, path), unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // ends the lease too
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return !errors.Is(err, unix.EAGAIN), nil
}

// sortedTargets returns the union of both lists in order.
func sortedTargets(a, b []gfx.Target) []gfx.Target {
	out := slices.Concat(a, b)
	gfx.Sort(out)
	return slices.Compact(out)
}
