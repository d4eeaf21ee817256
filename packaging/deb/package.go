package deb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	nfpmdeb "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"

	"forge.lthn.ai/core/go-rocm/packaging/assets"
)

// pkg is a binary package before it is written.
type pkg struct {
	name       string
	arch       string // "amd64" if empty
	section    string // "science" if empty
	synopsis   string
	details    []string // paragraphs of the description
	depends    []string
	recommends []string
	provides   []string
	conflicts  []string
	replaces   []string
	interest   []string // paths whose changes trigger the postinst
	entries    []entry
	recompress Recompressor      // makes the data archive smaller; nil: it stays
	scripts    map[string][]byte // by maintainer script name
	overrides  []override
}

// entry is a file of a package, from a file on disk or from text.
type entry struct {
	path string      // absolute installation path
	from string      // path on disk; empty if text is the content
	text []byte      // the content if from is empty
	mode os.FileMode // permission bits
	conf bool        // a conffile: dpkg keeps the administrator's changes
}

// finish adds what every package has: documents, lintian overrides and maintainer
// scripts. scripts maps the names of scripts to those of their assets.
func (p *pkg) finish(o Options, t terms, changes []byte, scripts map[string]string) error {
	p.scripts = map[string][]byte{}
	for name, asset := range scripts {
		text, err := readAsset(asset)
		if err != nil {
			return err
		}
		p.scripts[name] = text
	}
	doc := path.Join("/usr/share/doc", p.name)
	p.entries = append(p.entries,
		entry{path: path.Join(doc, "copyright"), text: t.copyright(o.Epoch), mode: 0o644},
		entry{path: path.Join(doc, "changelog.Debian.gz"), text: changes, mode: 0o644},
	)
	p.overrides = append(p.overrides, packageOverrides()...)
	p.addOverrides()
	return nil
}

// addOverrides adds the file of lintian overrides.
func (p *pkg) addOverrides() {
	p.entries = append(p.entries, entry{
		path: path.Join("/usr/share/lintian/overrides", p.name),
		text: overridesFile(p.name, p.overrides),
		mode: 0o644,
	})
}

func readAsset(name string) ([]byte, error) {
	b, err := assets.Debian.ReadFile("debian/" + name)
	if err != nil {
		return nil, fmt.Errorf("read the asset %s: %w", name, err)
	}
	return b, nil
}

// description returns the control field: the synopsis, then the paragraphs, folded
// at 78 columns and separated by lines with a single dot.
func (p *pkg) description() string {
	var b strings.Builder
	b.WriteString(p.synopsis)
	for i, para := range p.details {
		if i > 0 {
			b.WriteString("\n.")
		}
		for _, line := range fold(para, 78) {
			b.WriteString("\n" + line)
		}
	}
	return b.String()
}

// fold breaks text at spaces into lines of at most width bytes. A longer word gets
// a line of its own.
func fold(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// compression is supported by dpkg since 1.21.18 (Debian 12, Ubuntu 22.04). This
// level compresses the long runs of zeros in slimmed libraries well.
// fastCompression is for a data archive that is compressed again.
const (
	compression     = "zstd:19"
	fastCompression = "zstd:1"
)

func (p *pkg) build(ctx context.Context, o Options, v Version) (string, error) {
	if err := os.MkdirAll(o.OutDir, 0o755); err != nil {
		return "", fmt.Errorf("create the output directory: %w", err)
	}
	name, err := p.write(ctx, o, v)
	if err != nil {
		return "", fmt.Errorf("write package %s: %w", p.name, err)
	}
	return name, nil
}

// write writes the package into o.OutDir and returns its path.
func (p *pkg) write(ctx context.Context, o Options, v Version) (_ string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(o.OutDir, ".deb-")
	if err != nil {
		return "", fmt.Errorf("create a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	info, err := p.info(o, v, work)
	if err != nil {
		return "", err
	}
	// nfpm takes no context and compresses into memory before it writes. It opens
	// each file by name, so removing the names in work stops it.
	defer context.AfterFunc(ctx, func() { _ = os.RemoveAll(work) })()
	packager := &nfpmdeb.Deb{}
	name := packager.ConventionalFileName(info)
	staged := filepath.Join(work, name)
	f, err := os.OpenFile(staged, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", fmt.Errorf("create %s: %w", name, err)
	}
	err = packager.Package(info, f)
	if ctx.Err() != nil {
		err = ctx.Err() // whatever nfpm could not find
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
	if p.recompress != nil {
		smaller := staged + ".small"
		if err := recompress(ctx, staged, smaller, work, p.recompress); err != nil {
			return "", fmt.Errorf("pack %s: %w", name, err)
		}
		staged = smaller
	}
	final := filepath.Join(o.OutDir, name)
	if err := os.Rename(staged, final); err != nil {
		return "", fmt.Errorf("rename the finished package: %w", err)
	}
	return final, nil
}

// info translates the package for nfpm. nfpm reads files only: texts are written
// into work, and files on disk get a name there.
func (p *pkg) info(o Options, v Version, work string) (*nfpm.Info, error) {
	info := &nfpm.Info{
		Name:            p.name,
		Arch:            cmp.Or(p.arch, "amd64"),
		Platform:        "linux",
		Version:         v.Core,
		VersionSchema:   "none", // already parsed
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
	info.Recommends = p.recommends
	info.Provides = p.provides
	info.Conflicts = p.conflicts
	info.Replaces = p.replaces
	info.Deb.Triggers.InterestNoAwait = p.interest
	info.Deb.Compression = compression
	if p.recompress != nil {
		info.Deb.Compression = fastCompression
	}
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
		script := filepath.Join(work, "script-"+name)
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return nil, fmt.Errorf("stage %s: %w", name, err)
		}
		switch name {
		case "postinst":
			info.Scripts.PostInstall = script
		case "prerm":
			info.Scripts.PreRemove = script
		case "postrm":
			info.Scripts.PostRemove = script
		}
	}
	return info, nil
}

// stage creates a name for the entry's file at or below at, and returns it. For a
// file on disk it links the directory, because nfpm packs a link to a file as a
// link.
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

// content sets every property, so that only the contents and the size of a file
// come from the file system.
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
