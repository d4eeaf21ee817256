package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// item is one entry of a layer: a file from disk, a text made here, or a folder.
type item struct {
	path string // without a leading slash
	from string
	text string
	mode fs.FileMode // with fs.ModeDir for a folder
	own  int         // number of user and group
}

func bundleItems(dir string, m *bundle.Manifest) []item {
	list := []item{{path: path.Join(bundlePath, bundle.ManifestName), from: filepath.Join(dir, bundle.ManifestName), mode: 0o644}}
	for _, f := range m.Files {
		list = append(list, item{
			path: path.Join(bundlePath, f.Path),
			from: filepath.Join(dir, filepath.FromSlash(f.Path)),
			mode: fs.FileMode(f.Mode) & fs.ModePerm,
		})
	}
	return list
}

// systemItems are what programs expect of a system: names for the user's
// number, and folders that it may write to.
func systemItems() []item {
	user := fmt.Sprint(UserID)
	return []item{
		{path: "etc/passwd", text: "root:x:0:0:root:/:/sbin/nologin\ngo-rocm:x:" + user + ":" + user + ":go-rocm:/" + statePath + ":/sbin/nologin\n", mode: 0o644},
		{path: "etc/group", text: "root:x:0:\ngo-rocm:x:" + user + ":\n", mode: 0o644},
		{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{path: runPath, mode: fs.ModeDir | 0o700, own: UserID},
		{path: statePath, mode: fs.ModeDir | 0o755, own: UserID},
	}
}

func commandItems(o Options) []item {
	return []item{
		{path: commandPath, from: o.Command, mode: 0o755},
		{path: copyrightPath, text: string(o.Copyright), mode: 0o644},
	}
}

// withFolders adds the folders above each entry and sorts, parents first.
func withFolders(list []item) []item {
	have := map[string]bool{}
	for _, it := range list {
		have[it.path] = true
	}
	out := slices.Clone(list)
	for _, it := range list {
		for dir := path.Dir(it.path); dir != "." && !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			out = append(out, item{path: dir, mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(out, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return out
}

// write puts the entry into a tar stream. Nothing of the file system but the
// content gets in.
func (it item) write(ctx context.Context, w *tar.Writer, when time.Time) error {
	h := &tar.Header{
		Name: it.path, Mode: int64(it.mode.Perm()), Uid: it.own, Gid: it.own,
		ModTime: when.UTC().Truncate(time.Second), Format: tar.FormatPAX,
	}
	if it.mode.IsDir() {
		h.Typeflag, h.Name = tar.TypeDir, it.path+"/"
		if it.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		return w.WriteHeader(h)
	}
	h.Typeflag = tar.TypeReg
	if it.from == "" {
		h.Size = int64(len(it.text))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(w, it.text)
		return err
	}
	f, err := os.Open(it.from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = info.Size()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, ctxio.Reader(ctx, f))
	return err
}

// writeLayer writes entries as a compressed layer to the file name. It is gzip,
// since Docker's classic image store takes no zstd.
func writeLayer(ctx context.Context, name string, list []item, when time.Time) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w := tar.NewWriter(z)
	for _, it := range withFolders(list) {
		if err = ctx.Err(); err == nil {
			err = it.write(ctx, w, when)
		}
		if err != nil {
			err = fmt.Errorf("layer: %s: %w", it.path, err)
			break
		}
	}
	if err == nil {
		err = w.Close()
	}
	return errors.Join(err, z.Close(), f.Close())
}
