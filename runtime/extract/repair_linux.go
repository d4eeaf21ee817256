package extract

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// repair makes an existing directory match the manifest for the requested and the
// already installed targets. It returns whether it wrote anything, and the targets
// that are installed now.
func (j *job) repair(ctx context.Context) (changed bool, have []gfx.Target, err error) {
	have = unionTargets(j.targets, j.presentTargets())
	dir, err := j.root.OpenRoot(j.digest)
	if err != nil {
		return false, nil, err
	}
	defer func() { _ = dir.Close() }()
	// Foreign files are removed first, so that no file is read through a directory
	// that is about to be removed.
	foreign, err := j.removeForeign(dir)
	if err != nil {
		return false, nil, err
	}
	bad, err := j.inspect(ctx, dir, have)
	if err != nil {
		return false, nil, err
	}
	if len(bad) > 0 {
		if err := j.replace(ctx, bad, j.m.ProjectionFor(have)); err != nil {
			return false, nil, err
		}
		j.o.trace("replaced")
	}
	return foreign || len(bad) > 0, have, syncDirs(dir, j.o.synced)
}

// removeForeign removes foreign files and directories, and reports whether there were
// any.
func (j *job) removeForeign(dir *os.Root) (bool, error) {
	handle, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = handle.Close() }()
	foreign, err := j.fixDirs(dir, int(handle.Fd()))
	if err != nil {
		return false, err
	}
	for _, p := range foreign {
		j.o.Log.Warn("removing a file that is not part of the bundle", "path", filepath.Join(j.dir, j.digest, p))
		if err := dir.RemoveAll(p); err != nil {
			return false, err
		}
	}
	return len(foreign) > 0, nil
}

// presentTargets returns the targets that are installed, at least partly: those of the
// stamp, and those with any file of their own. So an interrupted addition is
// completed and never undone, since a running server may open those files.
func (j *job) presentTargets() []gfx.Target {
	present := make(map[gfx.Target]bool)
	if rec, err := j.readStamp(j.digest); err == nil {
		for _, t := range rec.targets {
			present[t] = slices.Contains(j.m.Targets, t)
		}
	}
	for _, f := range j.m.Files {
		if f.Target == "" || present[f.Target] {
			continue
		}
		if _, err := j.statNoFollow(filepath.Join(j.digest, f.Path)); err == nil {
			present[f.Target] = true
		}
	}
	maps.DeleteFunc(present, func(_ gfx.Target, is bool) bool { return !is })
	return slices.Collect(maps.Keys(present))
}

// inspect finds files that are not right for these targets. It does not hash files
// that match a valid stamp, unless they were stamped for targets that need less of
// them.
func (j *job) inspect(ctx context.Context, dir *os.Root, have []gfx.Target) (map[string]bool, error) {
	handle, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	stamped, stampedFor := j.stampedEntries()
	sameForm := stampedFor == "" || stampedFor == j.m.ProjectionFor(have)
	matches := func(f bundle.File) bool {
		old, ok := stamped[f.Path]
		now, err := statEntry(int(handle.Fd()), f.Path)
		return ok && err == nil && now == old && int(now.uid) == os.Geteuid() && (sameForm || len(f.Parts) == 0)
	}
	sum := sha256.Sum256(j.r.ManifestBytes())
	files := append(slices.Clone(j.m.Files), bundle.File{
		Path: bundle.ManifestName, Size: int64(len(j.r.ManifestBytes())), Mode: 0o644, SHA256: hex.EncodeToString(sum[:]),
	})
	want := bundle.ForTargets(have)
	bad := make(map[string]bool)
	for _, f := range files {
		if !want(f) || matches(f) {
			continue
		}
		diffs := bundle.CheckFile(ctx, dir, f, have)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(diffs) == 0 && !j.isOwn(f.Path) {
			diffs = []bundle.Difference{{Path: f.Path, Kind: bundle.WrongMode, Got: "another owner's", Want: "this user's"}}
		}
		if len(diffs) == 0 {
			continue
		}
		if err := diffs[0].Err; errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err // a shortage of descriptors is not damage
		}
		bad[f.Path] = true
		j.logDifference(f, diffs)
	}
	return bad, nil
}

// logDifference logs why a file is unpacked again.
func (j *job) logDifference(f bundle.File, diffs []bundle.Difference) {
	if diffs[0].Kind == bundle.Missing {
		return
	}
	if t, ok := f.ProjectionTarget(diffs[0].Got); ok && len(diffs) == 1 {
		j.o.Log.Info("unpacking a bundle file again, which has the code of one target only", "file", f.Path, "target", t)
		return
	}
	j.o.Log.Warn("unpacking a damaged bundle file again", "difference", diffs[0].String())
}

func (j *job) isOwn(path string) bool {
	st, err := j.statNoFollow(filepath.Join(j.digest, path))
	return err == nil && int(st.Uid) == os.Geteuid()
}

// stampedEntries returns the stamp's entries for files, and the only target for which
// files with parts were stamped ("" for whole files).
func (j *job) stampedEntries() (map[string]stampEntry, gfx.Target) {
	rec, err := j.readStamp(j.digest)
	if err != nil {
		return nil, ""
	}
	out := make(map[string]stampEntry, len(rec.entries))
	for _, e := range rec.entries {
		if !e.dir {
			out[e.path] = e
		}
	}
	return out, j.m.ProjectionFor(rec.targets)
}

// fixDirs corrects the mode of the bundle's directories, and returns the names that
// are not part of the bundle or are not the directories they should be.
func (j *job) fixDirs(dir *os.Root, fd int) (extra []string, err error) {
	dirs := make(map[string]bool)
	files := map[string]bool{bundle.ManifestName: true}
	for _, f := range j.m.Files {
		files[f.Path] = true
		for d := filepath.Dir(f.Path); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		e, err := statEntry(fd, d)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // created together with its files
		case err != nil && !errors.Is(err, unix.ENOTDIR):
			return nil, err
		case err != nil || !e.dir || int(e.uid) != os.Geteuid():
			extra = append(extra, d)
			continue
		}
		if e.mode&0o7777 != 0o700 {
			if err := dir.Chmod(d, 0o700); err != nil {
				return nil, err
			}
		}
	}
	err = fs.WalkDir(dir.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == "." || d.IsDir() && dirs[p] || files[p] && !d.IsDir():
			return nil
		case slices.Contains(extra, p):
		default:
			extra = append(extra, p)
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return extra, err
}

// replace unpacks the bad files into a stage and renames them one by one. Files of
// single targets come last: when they are present, so is the target's code in the
// other files. A running server keeps the old files; no file is ever partly
// written.
func (j *job) replace(ctx context.Context, bad map[string]bool, only gfx.Target) error {
	stage, err := j.stage(ctx, func(f bundle.File) bool { return bad[f.Path] }, only, bad[bundle.ManifestName])
	if err != nil {
		return err
	}
	defer func() {
		j.freeReserve()
		if err := j.root.RemoveAll(stage); err != nil {
			j.o.Log.Warn("stage cannot be removed", "name", stage, "error", err)
		}
	}()
	order := slices.SortedFunc(maps.Keys(bad), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.targetOf(a), j.targetOf(b)), cmp.Compare(a, b))
	})
	for _, path := range order {
		dest := filepath.Join(j.digest, path)
		if err := j.makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		if err := j.renameOver(filepath.Join(stage, path), dest); err != nil {
			return fmt.Errorf("replace %s: %w", path, err)
		}
	}
	return nil
}

// targetOf returns the only target that needs the file, empty for core files.
func (j *job) targetOf(path string) gfx.Target {
	f, _ := j.m.File(path)
	return f.Target
}

func (j *job) makeDirs(path string) error {
	if path == "." {
		return nil
	}
	if err := j.makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	err := j.root.Mkdir(filepath.Join(j.digest, path), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
