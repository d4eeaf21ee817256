package deb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	nfpmdeb "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// compression is what dpkg reads since 1.21.18 (Debian 12, Ubuntu 22.04), at a
// level that keeps the long empty stretches of slimmed libraries small.
const compression = "zstd:19"

// write makes the package in o.OutDir and returns its path.
func (p *pkg) write(ctx context.Context, o Options, v Version) (_ string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(o.OutDir, ".deb-")
	if err != nil {
		return "", fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	info, err := p.info(o, v, work)
	if err != nil {
		return "", err
	}
	// nfpm knows no context and compresses into memory before it writes, but it
	// opens each file by its name: those in work go when the context ends.
	defer context.AfterFunc(ctx, func() { _ = os.RemoveAll(work) })()
	packager := &nfpmdeb.Deb{}
	name := packager.ConventionalFileName(info)
	staged := filepath.Join(work, name)
	f, err := os.OpenFile(staged, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", fmt.Errorf("stage: %w", err)
	}
	err = packager.Package(info, f)
	if ctx.Err() != nil {
		err = ctx.Err() // whatever nfpm misses
	}
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("pack %s: %w", name, err)
	}
	final := filepath.Join(o.OutDir, name)
	if err := os.Rename(staged, final); err != nil {
		return "", fmt.Errorf("put in place: %w", err)
	}
	return final, nil
}

// info is the package in nfpm's words. All files have names below work; texts made
// here are written there, since nfpm takes files.
func (p *pkg) info(o Options, v Version, work string) (*nfpm.Info, error) {
	info := &nfpm.Info{
		Name:            p.name,
		Arch:            cmp.Or(p.arch, "amd64"),
		Platform:        "linux",
		Version:         v.Core,
		VersionSchema:   "none", // it was read before
		Prerelease:      v.Prerelease,
		VersionMetadata: v.Metadata,
		Release:         v.Revision,
		Section:         cmp.Or(p.section, "science"),
		Priority:        "optional",
		Maintainer:      o.Maintainer,
		Homepage:        "https://forge.lthn.ai/core/go-rocm",
		Description:     p.description(),
		DisableGlobbing: true,
		MTime:           o.Epoch,
	}
	info.Depends = p.depends
	info.Recommends = p.recommend
	info.Provides = p.provides
	info.Conflicts = p.conflicts
	info.Replaces = p.replaces
	info.Deb.Triggers.InterestNoAwait = p.interest
	info.Deb.Compression = compression
	info.Deb.Fields = map[string]string{"Multi-Arch": "foreign"}

	dirs := map[string]bool{}
	for i, e := range p.entries {
		from, err := e.stage(filepath.Join(work, fmt.Sprintf("entry-%d", i)))
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", e.path, err)
		}
		kind := files.TypeFile
		if e.conf {
			kind = files.TypeConfig
		}
		info.Contents = append(info.Contents, content(from, e.path, kind, e.mode, o))
		for dir := filepath.Dir(e.path); dir != "/" && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
			info.Contents = append(info.Contents, content("", dir, files.TypeDir, 0o755, o))
		}
	}
	for name, text := range p.scripts {
		at := filepath.Join(work, "script-"+name)
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return nil, fmt.Errorf("stage %s: %w", name, err)
		}
		switch name {
		case "postinst":
			info.Scripts.PostInstall = at
		case "prerm":
			info.Scripts.PreRemove = at
		case "postrm":
			info.Scripts.PostRemove = at
		}
	}
	return info, nil
}

// stage gives the entry's file a name at or below at. It is the folder of a file
// on disk that is linked: of a link to a file nfpm packs the link.
func (e entry) stage(at string) (string, error) {
	if e.from == "" {
		return at, os.WriteFile(at, e.text, 0o600)
	}
	from, err := filepath.EvalSymlinks(e.from)
	if err == nil {
		from, err = filepath.Abs(from)
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(at, filepath.Base(from)), os.Symlink(filepath.Dir(from), at)
}

// content states every property, so that nothing is asked of the file system
// but a file's bytes and size.
func content(from, to, kind string, mode fs.FileMode, o Options) *files.Content {
	return &files.Content{
		Source:      from,
		Destination: strings.TrimSuffix(to, "/"),
		Type:        kind,
		FileInfo: &files.ContentFileInfo{
			Owner: "root",
			Group: "root",
			Mode:  mode,
			MTime: o.Epoch,
		},
	}
}
