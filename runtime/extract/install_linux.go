package extract

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// attempts limits the installations after the cache was removed or file descriptors
// ran out.
const attempts = 5

// job is one call of Extract at one location.
type job struct {
	*store
	r       *bundle.Reader
	m       *bundle.Manifest
	digest  string
	targets []gfx.Target
	o       Options
	spare   reserve
}

// installAt ensures that the bundle is installed at the location. It starts again if
// the cache is removed or file descriptors run out.
func installAt(ctx context.Context, r *bundle.Reader, p location, targets []gfx.Target, o Options) (*Installed, error) {
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
		if isFull(err) { // directories and locks need space too
			need, inodes := spaceNeeded(r, bundle.ForTargets(targets), r.Manifest().ProjectionFor(targets))
			return nil, spaceError(p.dir, err, need, inodes)
		}
		if !errors.Is(err, errCacheRemoved) && !errors.Is(err, ErrTooManyFiles) {
			return nil, err
		}
	}
	return nil, err
}

func installOnce(ctx context.Context, r *bundle.Reader, p location, targets []gfx.Target, o Options) (*Installed, error) {
	s, err := openStore(p)
	if err != nil {
		return nil, addRemedy(err)
	}
	defer func() { _ = s.close() }()
	j := &job{store: s, r: r, m: r.Manifest(), digest: r.Digest(), targets: targets, o: o}
	if j.o.trace == nil {
		j.o.trace = func(string) {}
	}
	if j.o.synced == nil {
		j.o.synced = func(string) {}
	}
	if err := s.checkExec(); err != nil {
		return nil, err
	}
	lease, err := s.lease(ctx, j.digest)
	if err != nil {
		return nil, err
	}
	inst, err := j.ensure(ctx)
	if err != nil || !o.Lease {
		return inst, errors.Join(err, lease.Release())
	}
	inst.Lease = lease
	return inst, nil
}

// ensure returns the installed bundle, or installs it.
func (j *job) ensure(ctx context.Context) (*Installed, error) {
	have, err := j.checkFast(j.digest, j.targets)
	if err == nil {
		return j.installed(have, false), nil
	}
	j.o.Log.Debug("bundle does not match its stamp", "dir", j.dir, "reason", err)
	j.o.trace("stale")
	inst, err := j.verifyAndRepair(ctx)
	if err != nil && j.wasRemoved() && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errCacheRemoved, err)
	}
	if err != nil {
		return nil, addRemedy(err)
	}
	return inst, nil
}

func (j *job) installed(targets []gfx.Target, changed bool) *Installed {
	return &Installed{Dir: filepath.Join(j.dir, j.digest), Manifest: j.m, Targets: targets, Changed: changed}
}

// verifyAndRepair installs, completes or repairs the bundle while it has the lock.
func (j *job) verifyAndRepair(ctx context.Context) (*Installed, error) {
	l, err := j.acquire(ctx, j.digest, j.o.Log)
	if err == nil {
		defer l.release()
	}
	switch {
	case isUnwritable(err) || isFull(err) || j.readOnly:
		return j.useUnsealed(ctx, err)
	case err != nil:
		return nil, err
	}
	j.o.trace("locked")
	// The previous owner of the lock may have installed the bundle.
	if have, err := j.checkFast(j.digest, j.targets); err == nil {
		return j.installed(have, false), nil
	}
	if err := j.fillReserve(); err != nil {
		return nil, err
	}
	defer j.freeReserve()
	if l.held {
		if err := j.sweep(j.digest, j.o.Log); err != nil {
			j.o.Log.Warn("abandoned stages cannot be removed", "dir", j.dir, "error", err)
		}
	}
	if err := j.clearDestination(); err != nil {
		return nil, err
	}
	put := j.repair
	_, err = j.statNoFollow(j.digest)
	absent := errors.Is(err, fs.ErrNotExist)
	if absent {
		put = j.install
	}
	changed, have, err := put(ctx)
	if err != nil {
		return nil, err
	}
	j.freeReserve()
	if err := j.waitNoWriters(ctx); err != nil {
		return nil, err
	}
	switch err := j.writeStamp(ctx, j.m, j.digest, have); {
	case isFull(err):
		// Every byte was just verified, so the bundle can be used without a stamp.
		j.o.Log.Warn("no space for the bundle's stamp, every start hashes the bundle", "dir", j.dir, "error", err)
	case err != nil:
		return nil, err
	}
	j.o.trace("stamped")
	if absent {
		j.removeSuperseded(ctx)
	}
	return j.installed(have, changed), nil
}

// removeSuperseded removes bundles of the same name that have not been used for a
// long time. A failure does not keep the new bundle from being used.
func (j *job) removeSuperseded(ctx context.Context) {
	o := PruneOptions{UnusedFor: SupersededAge, Keep: []string{j.digest}, Name: j.m.Name, Log: j.o.Log, trace: j.o.trace}
	if _, err := j.prune(ctx, o); err != nil {
		j.o.Log.Warn("old bundles cannot be removed", "dir", j.dir, "error", err)
	}
}

func isUnwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

// useUnsealed returns an installed bundle from a location where nothing can be
// written, not even a lock, if its content is right. It needs no stamp.
func (j *job) useUnsealed(ctx context.Context, cause error) (*Installed, error) {
	err := bundle.VerifyTargets(ctx, filepath.Join(j.dir, j.digest), j.m, j.targets)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case isFull(cause):
		return nil, cause
	default:
		return nil, fmt.Errorf("%w: %s does not contain the bundle, undamaged and for the requested targets; set %s to a writable directory: %w",
			ErrReadOnly, j.dir, CacheEnv, errors.Join(cause, err))
	}
	j.o.Log.Warn("cache is not writable, every start hashes the bundle", "dir", j.dir)
	return j.installed(j.targets, false), nil
}

// clearDestination removes anything but a directory from the bundle's path. Only
// this package writes in the store, so it was planted or is an accident.
func (j *job) clearDestination() error {
	st, err := j.statNoFollow(j.digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		j.o.Log.Warn("removing a foreign file from the bundle's path", "path", filepath.Join(j.dir, j.digest))
		return j.root.Remove(j.digest)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to user %d; remove it", ErrUnsafe, filepath.Join(j.dir, j.digest), st.Uid)
	case st.Mode&0o7777 != 0o700:
		return j.root.Chmod(j.digest, 0o700)
	}
	return nil
}

// install unpacks the bundle into a stage and renames it. Like repair it returns
// whether it wrote anything, and the targets that are installed now.
func (j *job) install(ctx context.Context) (changed bool, have []gfx.Target, err error) {
	name, err := j.stage(ctx, bundle.ForTargets(j.targets), j.m.ProjectionFor(j.targets), true)
	if err != nil {
		return false, nil, err
	}
	err = j.renameNoReplace(name, j.digest)
	if errors.Is(err, fs.ErrExist) {
		// A process without the lock was faster. Its bundle is verified like any
		// other.
		j.o.Log.Warn("another install took the name first", "digest", j.digest)
		if err := j.root.RemoveAll(name); err != nil {
			return false, nil, err
		}
		return j.repair(ctx)
	}
	if err != nil {
		return false, nil, errors.Join(err, j.root.RemoveAll(name))
	}
	j.o.trace("renamed")
	if err := j.handle.Sync(); err != nil {
		return false, nil, fmt.Errorf("sync cache directory: %w", err)
	}
	j.o.trace("cache synced")
	j.o.Log.Info("installed bundle", "dir", filepath.Join(j.dir, j.digest), "targets", gfx.Join(j.targets, ","))
	return true, j.targets, nil
}

// waitNoWriters waits until no process has a program of the bundle open for writing,
// including this one: a child that was forked while another goroutine wrote the
// program has the descriptor open until its exec. The kernel grants a read lease
// only if there is no writer.
func (j *job) waitNoWriters(ctx context.Context) error {
	for _, path := range []string{j.m.Entry.Loader, j.m.Entry.Program} {
		if path == "" {
			continue
		}
		wait := time.Millisecond
		for waited := time.Duration(0); ; waited += wait {
			free, err := j.hasNoWriter(path)
			if err != nil {
				return err
			}
			if free {
				break
			}
			j.o.trace("waiting for writer")
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

// hasNoWriter reports whether the file has no writer. It returns true on file systems
// without leases.
func (j *job) hasNoWriter(path string) (bool, error) {
	f, err := j.openNoFollow(filepath.Join(j.digest, path), unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // also ends the lease
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return !errors.Is(err, unix.EAGAIN), nil
}

// unionTargets returns the sorted union of both lists. It is never nil, which would
// mean all targets.
func unionTargets(a, b []gfx.Target) []gfx.Target {
	out := append(append([]gfx.Target{}, a...), b...)
	gfx.Sort(out)
	return slices.Compact(out)
}
