package recipe

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// packRevision is part of the key of packs. Increment it when packing the same bundle produces
// other bytes than before.
const packRevision = 2

// packLevel is the level of zstd; docs/pack.md has the figures.
const packLevel = 19

// Packed is a variant's bundle, as a directory and as one file.
type Packed struct {
	Variant  string
	Label    string // variant and flavour: "hip", "hip-system"
	Bundle   *stage.Result
	Pack     *stage.Result
	File     string // the packed bundle
	Manifest *bundle.Manifest
	Size     int64 // of File, in bytes
}

// Pack returns a variant's bundle, packed.
func (r *Recipe) Pack(ctx context.Context, v Variant) (*Packed, error) {
	b, err := r.Bundle(ctx, v)
	if err != nil {
		return nil, err
	}
	m, err := bundle.ReadManifest(b.Dir)
	if err != nil {
		return nil, fmt.Errorf("%w; remove %s to collect the bundle again", err, b.Dir)
	}
	name := m.Name + "-" + m.Version + "-linux-amd64.tar.zst"
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(toolchain.CPU), r.Log)
	if err != nil {
		return nil, err
	}
	in := struct {
		Manifest, Zstd string
		Level          int
		Revision       int
	}{m.Digest(), t.Version("zstd"), packLevel, packRevision}
	res, err := r.Cache.Do(ctx, "pack-"+v.Label(), in, func(ctx context.Context, dir string) error {
		if _, err := fmt.Fprintf(r.Log, "pack-%s: %d files, %d MB\n", v.Label(), len(m.Files), m.Size()>>20); err != nil {
			return err
		}
		if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(toolchain.CPU), t, r.Log); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		stats, err := bundle.Pack(ctx, f, b.Dir, m, bundle.PackOptions{Encoder: r.encoder(t), Workers: r.Jobs})
		if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(r.Log, "pack-%s: %.1f MB in %s\n", v.Label(), float64(stats.Packed)/1e6, stats.Elapsed.Round(1e8))
		return err
	})
	if err != nil {
		return nil, err
	}
	p := &Packed{Variant: v.Name, Label: v.Label(), Bundle: b, Pack: res, File: filepath.Join(res.Dir, name), Manifest: m}
	info, err := os.Stat(p.File)
	if err != nil {
		return nil, err
	}
	p.Size = info.Size()
	return p, nil
}

// encoder compresses a frame by the toolchain's zstd, whose version is locked:
// the bytes must not depend on what the machine has installed.
func (r *Recipe) encoder(t *toolchain.Toolchain) bundle.Encoder {
	return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
		argv := bundle.ZstdCommand(packLevel, bundle.WindowLog(size))(size)
		return r.Engine.Run(ctx, engine.Job{
			Name: "pack", Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", `"$@" </src/frame >/build/frame.zst`, "pack"}, argv...),
			Env: []string{"LC_ALL=C.UTF-8"}, Dir: "/build", UID: toolchain.User, GID: toolchain.User, Volumes: []string{"/src", "/build"},
			In: []engine.Input{{Dir: "/src", Write: func(w *tar.Writer) error {
				h := &tar.Header{Name: "frame", Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: r.Lock.Time()}
				if err := w.WriteHeader(h); err != nil {
					return err
				}
				_, err := io.Copy(w, src)
				return err
			}}},
			Out: []engine.Output{{Path: "/build/frame.zst", Read: func(_ *tar.Header, body io.Reader) error {
				_, err := io.Copy(dst, body)
				return err
			}}},
		})
	}
}
