package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
)

// Inner is the first argument of the child process that unpacks once; it calls Once.
const Inner = "extract-once"

// once is the result of the child process.
type once struct {
	Seconds    float64
	Start, End int64 // peak memory in KiB at the start and at the end
}

// Once unpacks a pack for a target into a cache directory, and writes the time and the
// peak memory of the process to w. args are the pack, the directory and the target.
func Once(ctx context.Context, w io.Writer, args []string) (err error) {
	if len(args) != 3 {
		return fmt.Errorf("%s needs a pack, a directory and a target, not %q", Inner, args)
	}
	target, err := gfx.Parse(args[2])
	if err != nil {
		return err
	}
	var o once
	if o.Start, err = peak(); err != nil {
		return err
	}
	start := time.Now()
	p, err := bundle.OpenFile(args[0])
	if err != nil {
		return err
	}
	_, err = extract.Extract(ctx, p.Reader, extract.Options{CacheDir: args[1], Targets: []gfx.Target{target}})
	if err := errors.Join(err, p.Close()); err != nil {
		return err
	}
	o.Seconds = time.Since(start).Seconds()
	if o.End, err = peak(); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(o)
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peak returns the peak memory of this process in KiB, as the kernel counts it.
func peak() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	f := highWater.FindSubmatch(b)
	if f == nil {
		return 0, errors.New("no VmHWM in /proc/self/status")
	}
	return strconv.ParseInt(string(f[1]), 10, 64)
}

// Extraction compares a cold extraction for one target with zstd and tar on the same
// frames.
func Extraction(ctx context.Context, in Input) (page.Section, error) {
	var none page.Section
	same := filepath.Join(in.Work, "same.tar.zst")
	if err := in.writeFrames(ctx, same); err != nil {
		return none, err
	}
	var memory []float64
	ours := in.fresh("extract for "+in.Target.String(), func(ctx context.Context, dir string) (float64, error) {
		o, took, err := inner(ctx, Inner, in.Pack, dir, in.Target.String())
		memory = append(memory, float64(o.End-o.Start)/1024)
		return took, err
	})
	peer := func(after string) func(context.Context, string) (float64, error) {
		return timed(func(ctx context.Context, dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), shell(ctx, `zstd -dcq "$1" | tar xp -C "$2"`+after, same, dir))
		})
	}
	samples, err := page.Interleave(ctx, in.Rounds, ours,
		in.fresh("zstd and tar", peer("")),
		in.fresh("zstd, tar and sync", peer(` && find "$2" -exec sync {} +`)))
	if err != nil {
		return none, err
	}
	ratio, durable := page.Median(page.Ratios(samples[0], samples[1])), page.Median(page.Ratios(samples[0], samples[2]))
	return page.Section{
		Name: "extract", Title: "Cold extraction for one target",
		Text: []string{
			fmt.Sprintf("`extract.Extract` of `%s` for %s into an empty cache, as a whole process, against `zstd -dc | tar x` of the same frames of the same pack. "+
				"Ours hashes every file, makes files and directories durable and records the result; of a file with code for several targets it writes the code of one, tar writes all of it. The third row is the peer that also waits for the disk. Medians of %d rounds.", base(in.Pack), in.Target, in.Rounds),
			"Memory is the increase of the peak memory of the process (VmHWM); the median of the rounds.",
		},
		Head: []string{"", "seconds", "ours against it"},
		Rows: [][]string{
			{"**extract.Extract, durable**", page.Figure(page.Median(samples[0])), ""},
			{"`zstd -dc \\| tar x`", page.Figure(page.Median(samples[1])), page.Ratio(ratio)},
			{"`zstd -dc \\| tar x`, then `sync` of each file", page.Figure(page.Median(samples[2])), page.Ratio(durable)},
		},
		Goals: []page.Goal{
			{What: "cold extraction against `zstd -dc | tar x` of the same files:", Got: ratio, Limit: 1, Unit: "times"},
			{What: "peak memory over the process's start:", Got: page.Median(memory), Limit: 64, Unit: "MiB"},
		},
	}, nil
}

// writeFrames writes the archive of the peer and checks that tar extracts the same files
// from it.
func (in *Input) writeFrames(ctx context.Context, file string) (err error) {
	p, err := bundle.OpenFile(in.Pack)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	pack, err := os.Open(in.Pack)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pack.Close()) }()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(copyFrames(f, pack, "manifest", "core", in.Target.String()), f.Close()); err != nil {
		return err
	}
	dir, err := in.newPath()
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), shell(ctx, `zstd -dcq "$1" | tar xp -C "$2"`, file, dir)); err != nil {
		return err
	}
	err = bundle.VerifyTargets(ctx, dir, p.Manifest(), []gfx.Target{in.Target})
	return errors.Join(err, os.RemoveAll(dir))
}
