package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Job is a bundle to pack with a zstd level.
type Job struct {
	Input
	Level int
}

// window returns the largest window of a bundle's frames, which is the peer's window.
func window(m *bundle.Manifest) int {
	largest := 0
	for _, f := range m.Files {
		largest = max(largest, bundle.WindowLog(f.Size))
	}
	return largest
}

// Packing compares packing and unpacking with tar and zstd.
func Packing(ctx context.Context, jobs ...Job) (page.Section, error) {
	s := page.Section{
		Name: "pack", Title: "Packing and unpacking a bundle",
		Text: []string{
			"Packing: `bundle.Pack` with the zstd program as its encoder, as in a release, against `tar -S | zstd` with the same level, threads and largest window " +
				"(8 MiB for the cpu bundle, 32 MiB for the hip bundle, where ours uses 8 MiB for most frames). Ours also compares every file with the manifest and decodes every frame again. " +
				"A release is packed at level 19; the hip bundle takes minutes at this level on both sides, so it is measured at a lower level.",
			"Unpacking: the whole pack with `Reader.Extract`, which hashes every file, against `zstd -dc | tar x`. Neither waits for the disk.",
		},
		Head: []string{"", "seconds", "tar and zstd", "ratio", "size in MB", "tar and zstd"},
	}
	seen := map[string]bool{}
	for _, j := range jobs {
		s.Text = append(s.Text, fmt.Sprintf("`%s`: medians of %d rounds, %d threads.", base(j.Pack), j.Rounds, j.Threads))
		dir, m, err := j.unpacked(ctx)
		if err != nil {
			return s, err
		}
		err = j.packRow(ctx, &s, dir, m)
		if err == nil && !seen[j.Pack] {
			err = j.unpackRow(ctx, &s)
		}
		seen[j.Pack] = true
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (j *Job) packRow(ctx context.Context, s *page.Section, dir string, m *bundle.Manifest) error {
	var sizes [2]float64
	ours := j.fresh("pack "+m.Name, timed(func(ctx context.Context, out string) (err error) {
		f, err := os.Create(out)
		if err != nil {
			return err
		}
		encoder := bundle.CommandEncoder(func(size int64) []string { return bundle.ZstdCommand(j.Level, bundle.WindowLog(size))(size) })
		stats, err := bundle.Pack(ctx, f, dir, m, bundle.PackOptions{Encoder: encoder, Workers: j.Threads})
		sizes[0] = float64(stats.Packed) / 1e6
		return errors.Join(err, f.Close())
	}))
	peer := j.fresh("tar and zstd", timed(func(ctx context.Context, out string) error {
		err := shell(ctx, `tar -S -c -C "$1" . | zstd -q "-$2" "-T$3" "--zstd=wlog=$4" -o "$5"`,
			dir, strconv.Itoa(j.Level), strconv.Itoa(j.Threads), strconv.Itoa(window(m)), out)
		if err != nil {
			return err
		}
		sizes[1], err = size(out)
		return err
	}))
	samples, err := page.Interleave(ctx, j.Rounds, ours, peer)
	if err != nil {
		return err
	}
	s.Rows = append(s.Rows, append(cells(fmt.Sprintf("pack %s, level %d", m.Name, j.Level), samples[0], samples[1]), page.Figure(sizes[0]), page.Figure(sizes[1])))
	return nil
}

func (j *Job) unpackRow(ctx context.Context, s *page.Section) error {
	p, err := bundle.OpenFile(j.Pack)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }() // opened for reading
	ours := j.fresh("unpack "+p.Manifest().Name, timed(func(ctx context.Context, dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		return errors.Join(p.Extract(ctx, root, bundle.ExtractOptions{Workers: j.Threads}), root.Close())
	}))
	peer := j.fresh("zstd and tar", timed(func(ctx context.Context, dir string) error {
		return errors.Join(os.Mkdir(dir, 0o700), shell(ctx, `zstd -dcq "$1" | tar xp -C "$2"`, j.Pack, dir))
	}))
	samples, err := page.Interleave(ctx, j.Rounds, ours, peer)
	if err != nil {
		return err
	}
	mb, err := size(j.Pack)
	if err != nil {
		return err
	}
	s.Rows = append(s.Rows, append(cells("unpack "+filepath.Base(p.Manifest().Name)+", all of it", samples[0], samples[1]), page.Figure(mb), page.Figure(mb)))
	return nil
}

// cells returns the first cells of a row: the medians and the median ratio.
func cells(what string, ours, peer []float64) []string {
	return []string{what, page.Figure(page.Median(ours)), page.Figure(page.Median(peer)), page.Ratio(page.Median(page.Ratios(ours, peer)))}
}
