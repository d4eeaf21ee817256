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

// repair brings an existing folder to what the manifest says for the targets
// wanted and those already there. It returns whether it wrote anything and
// the targets that are there now.
func (j *job) repair(ctx context.Context) (fresh bool, have []gfx.Target, err error) {
	have = sortedTargets(j.targets, j.presentTargets())
	dir, err := j.root.OpenRoot(j.digest)
	if err != nil {
		return false, nil, err
	}
	defer func() { _ = dir.Close() }()
	// Foreign names go first, so that no file is looked at through a folder
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
	return foreign || len(bad) > 0, have, syncTree(dir, j.o.synced)
}

// removeForeign removes what is not the bundle's and reports whether there
// was anything.
func (j *job) removeForeign(dir *os.Root) (bool, error) {
	handle, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = handle.Close() }()
	foreign, err := j.fixFolders(dir, int(handle.Fd()))
	if err != nil {
		return false, err
	}
	for _, p := range foreign {
		j.o.Log.Warn("removing what is not the bundle's", "path", filepath.Join(j.dir, j.digest, p))
		if err := dir.RemoveAll(p); err != nil {
			return false, err
		}
	}
	return len(foreign) > 0, nil
}

// presentTargets lists the targets that the folder serves, or began to: those
// of its seal, and those with any file of their own in place. So an addition
// that was cut off is completed and never taken back: a server that still
// runs may open those files.
func (j *job) presentTargets() []gfx.Target {
	there := make(map[gfx.Target]bool)
	if rec, err := j.readSeal(j.digest); err == nil {
		for _, t := range rec.targets {
			there[t] = slices.Contains(j.m.Targets, t)
		}
	}
	for _, f := range j.m.Files {
		if f.Target == "" || there[f.Target] {
			continue
		}
		if _, err := j.statNoFollow(filepath.Join(j.digest, f.Path)); err == nil {
			there[f.Target] = true
		}
	}
	maps.DeleteFunc(there, func(_ gfx.Target, is bool) bool { return !is })
	return slices.Collect(maps.Keys(there))
}

// inspect finds files that are not as these targets need them. A file that
// fits a valid seal is not hashed again, unless it was sealed for targets that
// need less of it.
func (j *job) inspect(ctx context.Context, dir *os.Root, have []gfx.Target) (map[string]bool, error) {
	handle, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	sealed, sealedOnly := j.sealedEntries()
	sameForm := sealedOnly == "" || sealedOnly == j.m.ProjectionFor(have)
	fits := func(f bundle.File) bool {
		old, ok := sealed[f.Path]
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
		if !want(f) || fits(f) {
			continue
		}
		diffs := bundle.CheckFile(ctx, dir, f, have)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(diffs) == 0 && !j.ours(f.Path) {
			diffs = []bundle.Difference{{Path: f.Path, Kind: bundle.WrongMode, Got: "another owner's", Want: "this user's"}}
		}
		if len(diffs) == 0 {
			continue
		}
		if err := diffs[0].Err; errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err // a shortage is not damage
		}
		bad[f.Path] = true
		j.tell(f, diffs)
	}
	return bad, nil
}

// tell logs why a file is taken from the pack again.
func (j *job) tell(f bundle.File, diffs []bundle.Difference) {
	if diffs[0].Kind == bundle.Missing {
		return
	}
	if t, ok := f.ProjectionTarget(diffs[0].Got); ok && len(diffs) == 1 {
		j.o.Log.Info("bundle file has the code of one target, taking it from the pack for those wanted", "file", f.Path, "has", t)
		return
	}
	j.o.Log.Warn("bundle file is damaged, taking it from the pack again", "difference", diffs[0].String())
}

func (j *job) ours(path string) bool {
	st, err := j.statNoFollow(filepath.Join(j.digest, path))
	return err == nil && int(st.Uid) == os.Geteuid()
}

// sealedEntries returns what the seal says of each file, and for which only
// target files with parts were sealed ("": whole).
func (j *job) sealedEntries() (map[string]sealEntry, gfx.Target) {
	rec, err := j.readSeal(j.digest)
	if err != nil {
		return nil, ""
	}
	out := make(map[string]sealEntry, len(rec.entries))
	for _, e := range rec.entries {
		if !e.dir {
			out[e.path] = e
		}
	}
	return out, j.m.ProjectionFor(rec.targets)
}

// fixFolders gives the bundle's folders their mode, puts real folders where
// something else stands, and lists names that are not the bundle's.
func (j *job) fixFolders(dir *os.Root, fd int) (extra []string, err error) {
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
			continue // made when a file of it is
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

// replace takes the bad files from the pack and renames them into place one
// by one, those of single targets last, so that whoever sees these sees files
// that have their code too. A running server keeps the old ones; no file is
// ever half new.
func (j *job) replace(ctx context.Context, bad map[string]bool, only gfx.Target) error {
	stage, err := j.stage(ctx, func(f bundle.File) bool { return bad[f.Path] }, only, bad[bundle.ManifestName])
	if err != nil {
		return err
	}
	defer func() {
		j.freeReserve()
		if err := j.root.RemoveAll(stage); err != nil {
			j.o.Log.Warn("stage is left behind", "name", stage, "error", err)
		}
	}()
	order := slices.SortedFunc(maps.Keys(bad), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.ownerOf(a), j.ownerOf(b)), cmp.Compare(a, b))
	})
	for _, path := range order {
		goal := filepath.Join(j.digest, path)
		if err := j.makeFolders(filepath.Dir(path)); err != nil {
			return err
		}
		if err := j.renameOver(filepath.Join(stage, path), goal); err != nil {
			return fmt.Errorf("put %s in place: %w", path, err)
		}
	}
	return nil
}

// ownerOf is the target that alone needs the file, empty for core files.
func (j *job) ownerOf(path string) gfx.Target {
	f, _ := j.m.File(path)
	return f.Target
}

func (j *job) makeFolders(path string) error {
	if path == "." {
		return nil
	}
	if err := j.makeFolders(filepath.Dir(path)); err != nil {
		return err
	}
	err := j.root.Mkdir(filepath.Join(j.digest, path), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
