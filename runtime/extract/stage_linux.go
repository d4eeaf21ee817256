package extract

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func stagePrefix(digest string) string { return digest + ".stage-" }

// stage writes the selected files to a new directory beside the bundle's, those with
// parts for the target only or whole. It returns the directory's name. After an
// error it removes the directory.
func (j *job) stage(ctx context.Context, want func(bundle.File) bool, only gfx.Target, manifest bool) (string, error) {
	need, inodes := spaceNeeded(j.r, want, only)
	if err := j.checkSpace(need, inodes); err != nil {
		return "", err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	name := stagePrefix(j.digest) + hex.EncodeToString(id[:])
	err := j.root.Mkdir(name, 0o700)
	if err == nil {
		err = j.fillStage(ctx, name, want, only, manifest)
	}
	if err == nil {
		return name, nil
	}
	err = spaceError(j.dir, err, need, inodes)
	j.freeReserve()
	if rerr := j.root.RemoveAll(name); rerr != nil {
		j.o.Log.Warn("stage cannot be removed", "name", name, "error", rerr)
	}
	return "", err
}

// spaceNeeded returns the disk space for an installation of the selected files, in
// bytes and inodes, including directories, manifest, stamp and locks.
func spaceNeeded(r *bundle.Reader, want func(bundle.File) bool, only gfx.Target) (bytes, inodes int64) {
	bytes, inodes = r.DiskUsage(want, only)
	return bytes + int64(len(r.ManifestBytes())) + 64<<10, inodes + 16
}

func (j *job) fillStage(ctx context.Context, name string, want func(bundle.File) bool, only gfx.Target, manifest bool) error {
	root, err := j.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	j.o.trace("staged")
	err = j.r.Extract(ctx, root, bundle.ExtractOptions{
		Select: want, Projection: only, Sync: true, DirMode: 0o700, Guard: j.guard, Progress: j.o.Progress,
	})
	if err == nil && manifest {
		err = j.r.WriteManifest(root, true)
	}
	if err != nil {
		return err
	}
	j.o.trace("extracted")
	if err := syncDirs(root, j.o.synced); err != nil {
		return err
	}
	j.o.trace("synced")
	return nil
}

// guard prevents this process from forking while a program is open for writing: the
// child would have the descriptor open until its own exec, and starting the program
// in that moment fails with ETXTBSY. Libraries are mapped, not executed, and need
// no guard.
func (j *job) guard(f bundle.File) func() {
	if f.Mode&0o111 == 0 || (f.Path != j.m.Entry.Loader && f.Path != j.m.Entry.Program && strings.Contains(filepath.Base(f.Path), ".so")) {
		return func() {}
	}
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}

// sweep removes abandoned stages: those of the caller's own bundle, whose lock it has,
// and those of other bundles whose lock is free.
func (s *store) sweep(own string, log *slog.Logger) error {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		digest, _, ok := strings.Cut(e.Name(), ".stage-")
		if !ok || len(digest) != 2*32 {
			continue
		}
		if digest == own {
			errs = append(errs, s.removeStage(e.Name(), log))
			continue
		}
		l, err := s.tryLock(digest)
		if err != nil || l == nil {
			continue // another process is writing it
		}
		if l.held {
			errs = append(errs, s.removeStage(e.Name(), log))
		}
		l.release()
	}
	return errors.Join(errs...)
}

func (s *store) removeStage(name string, log *slog.Logger) error {
	log.Info("removing an abandoned stage", "name", name)
	return s.root.RemoveAll(name)
}

// reserve has file descriptors for cleaning up: after they run out during an
// installation, removing the stage needs some.
type reserve []int

// spareDescriptors suffice for removing the deepest bundle, and for the stamp.
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
		_ = unix.Close(fd) // a duplicate, to which nothing was written
	}
	j.spare = nil
}
