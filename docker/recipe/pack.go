package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// packRevision is part of the key of packs: raise it when packing the same
// bundle gives other bytes than before.
const packRevision = 1

// Packed is a variant's bundle, as a folder and as one file.
type Packed struct {
	Variant  string
	Bundle   *stage.Result
	Pack     *stage.Result
	File     string // the packed bundle
	Manifest *bundle.Manifest
	Size     int64 // of File, in bytes
}

// Pack gives a variant's bundle, packed.
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
	in := struct {
		Manifest string
		Revision int
	}{m.Digest(), packRevision}
	res, err := r.Cache.Do(ctx, "pack-"+v.Name, in, func(ctx context.Context, dir string) error {
		if _, err := fmt.Fprintf(r.Log, "pack-%s: %d files, %d MB\n", v.Name, len(m.Files), m.Size()>>20); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		stats, err := bundle.Pack(ctx, f, b.Dir, m, bundle.PackOptions{})
		if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(r.Log, "pack-%s: %.1f MB in %s\n", v.Name, float64(stats.Packed)/1e6, stats.Took.Round(1e8))
		return err
	})
	if err != nil {
		return nil, err
	}
	p := &Packed{Variant: v.Name, Bundle: b, Pack: res, File: filepath.Join(res.Dir, name), Manifest: m}
	info, err := os.Stat(p.File)
	if err != nil {
		return nil, err
	}
	p.Size = info.Size()
	return p, nil
}
