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
		if full(err) { // not only data needs room: folders and locks do too
			need, inodes := needFor(r, bundle.ForTargets(targets), r.Manifest().ProjectionFor(targets))
			return nil, spaceError(p.dir, err, need, inodes)
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
	if j.o.synced == nil {
		j.o.synced = func(string) {}
	}
	if err := s.checkExec(); err != nil {
		return nil, err
	}
	hold, err := s.hold(ctx, j.digest)
	if err != nil {
		return nil, err
	}
	inst, err := j.ensure(ctx)
	if err != nil || !o.Lease {
		return inst, errors.Join(err, hold.Release())
	}
	inst.Lease = hold
	return inst, nil
}

// ensure takes what is there, or installs it.
func (j *job) ensure(ctx context.Context) (*Installed, error) {
	have, err := j.warm(j.digest, j.targets)
	if err == nil {
		return j.installed(have, false), nil
	}
	j.o.Log.Debug("bundle is not ready", "dir", j.dir, "reason", err)
	j.o.trace("stale")
	inst, err := j.slow(ctx)
	if err != nil && j.gone() && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errSwept, err)
	}
	if err != nil {
		return nil, explain(err)
	}
	return inst, nil
}

func (j *job) installed(targets []gfx.Target, fresh bool) *Installed {
	return &Installed{Dir: filepath.Join(j.dir, j.digest), Manifest: j.m, Targets: targets, Changed: fresh}
}

// slow installs, completes or repairs the bundle under the lock.
func (j *job) slow(ctx context.Context) (*Installed, error) {
	l, err := j.acquire(ctx, j.digest, j.o.Log)
	if err == nil {
		defer l.release()
	}
	switch {
	case unwritable(err) || full(err) || j.readOnly:
		return j.asItIs(ctx, err)
	case err != nil:
		return nil, err
	}
	j.o.trace("locked")
	// Whoever held the lock before may have done the work.
	if have, err := j.warm(j.digest, j.targets); err == nil {
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
	if err := j.clearGoal(); err != nil {
		return nil, err
	}
	put := j.repair
	_, err = j.statNoFollow(j.digest)
	absent := errors.Is(err, fs.ErrNotExist)
	if absent {
		put = j.install
	}
	fresh, have, err := put(ctx)
	if err != nil {
		return nil, err
	}
	j.freeReserve()
	if err := j.waitWriters(ctx); err != nil {
		return nil, err
	}
	switch err := j.writeSeal(ctx, j.m, j.digest, have); {
	case full(err):
		// Every byte of it was just looked at: it does, seal or not.
		j.o.Log.Warn("there is no room for the bundle's seal, every start hashes it until there is", "dir", j.dir, "error", err)
	case err != nil:
		return nil, err
	}
	j.o.trace("sealed")
	if absent {
		j.removeSuperseded(ctx)
	}
	return j.installed(have, fresh), nil
}

// removeSuperseded removes bundles of the same name that nobody asked for in a
// long time. That it fails must not keep the new one from being used.
func (j *job) removeSuperseded(ctx context.Context) {
	o := PruneOptions{UnusedFor: SupersededAge, Keep: []string{j.digest}, Name: j.m.Name, Log: j.o.Log, trace: j.o.trace}
	if _, err := j.prune(ctx, o); err != nil {
		j.o.Log.Warn("old bundles cannot be removed", "dir", j.dir, "error", err)
	}
}

func unwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

// asItIs is what is left where nothing can be written, not even a lock: a bundle
// that is there and hashes right will do, sealed or not.
func (j *job) asItIs(ctx context.Context, cause error) (*Installed, error) {
	err := bundle.VerifyTargets(ctx, filepath.Join(j.dir, j.digest), j.m, j.targets)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case full(cause):
		return nil, cause
	default:
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

// install stages the bundle and gives it its name. Like repair it returns whether
// it wrote anything there, and the targets that are there now.
func (j *job) install(ctx context.Context) (fresh bool, have []gfx.Target, err error) {
	name, err := j.stage(ctx, bundle.ForTargets(j.targets), j.m.ProjectionFor(j.targets), true)
	if err != nil {
		return false, nil, err
	}
	err = j.renameNoReplace(name, j.digest)
	if errors.Is(err, fs.ErrExist) {
		// Somebody without our lock was faster. What is there is checked
		// against the manifest like any other find.
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
		return false, nil, fmt.Errorf("sync cache folder: %w", err)
	}
	j.o.trace("folder synced")
	j.o.Log.Info("installed bundle", "dir", filepath.Join(j.dir, j.digest), "targets", gfx.Join(j.targets, ","))
	return true, j.targets, nil
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

// sortedTargets returns the union of both lists in order; never nil, which
// would mean all targets.
func sortedTargets(a, b []gfx.Target) []gfx.Target {
	out := append(append([]gfx.Target{}, a...), b...)
	gfx.Sort(out)
	return slices.Compact(out)
}
