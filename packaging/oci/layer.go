package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/packaging/assets"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// entry is an entry of a layer: a file from disk, a text, or a directory.
type entry struct {
	path string // without a leading slash
	from string
	text string
	mode fs.FileMode // with fs.ModeDir for a directory
	id   int         // of user and group
}

// systemEntries returns what programs expect of a system: account names, and
// directories that the user may write to.
func systemEntries() []entry {
	user := fmt.Sprint(UserID)
	return []entry{
		{path: "etc/passwd", text: "root:x:0:0:root:/:/sbin/nologin\ngo-rocm:x:" + user + ":" + user + ":go-rocm:/" + statePath + ":/sbin/nologin\n", mode: 0o644},
		{path: "etc/group", text: "root:x:0:\ngo-rocm:x:" + user + ":\n", mode: 0o644},
		{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{path: runPath, mode: fs.ModeDir | 0o700, id: UserID},
		{path: statePath, mode: fs.ModeDir | 0o755, id: UserID},
	}
}

func commandEntries(o Options) ([]entry, error) {
	list := []entry{
		{path: commandPath, from: o.Command, mode: 0o755},
		{path: copyrightPath, text: string(o.Copyright), mode: 0o644},
	}
	monitoring, err := fs.Sub(assets.Monitoring, "monitoring")
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	files, err := fs.ReadDir(monitoring, ".")
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	for _, f := range files {
		text, err := fs.ReadFile(monitoring, f.Name())
		if err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
		list = append(list, entry{path: path.Join(monitoringPath, f.Name()), text: string(text), mode: 0o644})
	}
	return list, nil
}

// withParents adds the parent directories of each entry and sorts, parents first.
func withParents(list []entry) []entry {
	have := map[string]bool{}
	for _, e := range list {
		have[e.path] = true
	}
	out := slices.Clone(list)
	for _, e := range list {
		for dir := path.Dir(e.path); dir != "." && !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			out = append(out, entry{path: dir, mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return out
}

// write writes the entry to a tar stream. Only the contents come from the file
// system.
func (e entry) write(ctx context.Context, w *tar.Writer, when time.Time) error {
	h := &tar.Header{
		Name: e.path, Mode: int64(e.mode.Perm()), Uid: e.id, Gid: e.id,
		ModTime: when.UTC().Truncate(time.Second), Format: tar.FormatPAX,
	}
	if e.mode.IsDir() {
		h.Typeflag, h.Name = tar.TypeDir, e.path+"/"
		if e.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		return w.WriteHeader(h)
	}
	h.Typeflag = tar.TypeReg
	if e.from == "" {
		h.Size = int64(len(e.text))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(w, e.text)
		return err
	}
	f, err := os.Open(e.from)
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

// writeLayer writes a layer, compressed with zstd, to the file name.
func writeLayer(ctx context.Context, name string, list []entry, when time.Time) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return errors.Join(fmt.Errorf("layer: %w", err), f.Close())
	}
	w := tar.NewWriter(z)
	for _, e := range withParents(list) {
		if err = ctx.Err(); err == nil {
			err = e.write(ctx, w, when)
		}
		if err != nil {
			err = fmt.Errorf("layer: %s: %w", e.path, err)
			break
		}
	}
	if err == nil {
		err = w.Close()
	}
	return errors.Join(err, z.Close(), f.Close())
}

// errContent reports a compressor that changed the content of a layer.
var errContent = errors.New("the compressed layer has another content")

// recompress compresses the layer in a file by run, and returns the name of the new file
// beside it.
func recompress(ctx context.Context, name string, run func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error) (string, error) {
	src, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = src.Close() }()
	info, err := src.Stat()
	if err != nil {
		return "", err
	}
	smaller := name + "-small"
	dst, err := os.OpenFile(smaller, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	if err := errors.Join(run(ctx, dst, src, info.Size()), dst.Close()); err != nil {
		return "", err
	}
	before, err := diffID(name)
	if err != nil {
		return "", err
	}
	after, err := diffID(smaller)
	if err == nil && before != after {
		err = errContent
	}
	return smaller, err
}

// diffID returns the digest of the uncompressed layer in a file.
func diffID(name string) (v1.Hash, error) {
	l, err := openLayer(name)
	if err != nil {
		return v1.Hash{}, err
	}
	return l.DiffID()
}

// checkBundleLayer checks that a layer has the manifest of the bundle where the command
// looks for it. The package that the layer comes from was built from a verified bundle.
func checkBundleLayer(ctx context.Context, name string, m *bundle.Manifest) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	defer func() { _ = f.Close() }()
	z, err := zstd.NewReader(ctxio.Reader(ctx, f), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: the layer has no %s/%s", ErrBundle, bundlePath, bundle.ManifestName)
		}
		if err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		if path.Clean(h.Name) != path.Join(bundlePath, bundle.ManifestName) {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, io.LimitReader(r, h.Size)); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != m.Digest() {
			return fmt.Errorf("%w: the layer has the bundle with manifest %s, not %s", ErrBundle, got, m.Digest())
		}
		return nil
	}
}
