package offload

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"

	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// SlimStats is what Slim removed.
type SlimStats struct {
	Bundles int          // offload bundles seen
	Kept    int          // code objects that stay
	Removed int          // removed code objects
	Bytes   int64        // size of the removed ones
	Dropped []gfx.Target // removed targets, sorted
}

// ErrCompressedBundle reports a compressed offload bundle. Its
// entries cannot be cleared in place: build with --no-offload-compress, as
// Debian's rocBLAS and this module's recipes do.
var ErrCompressedBundle = errors.New("compressed offload bundle cannot be slimmed in place; build with --no-offload-compress")

// Slim removes the code objects of all targets but keep from the ELF file at
// path: their bytes become zero and their size in the bundle's table 0, so the
// HIP runtime finds no code for such a device instead of broken code. All
// offsets stay, so nothing else in the file changes; the file's size stays,
// and the cleared ranges become holes. A file of which every bundle is already
// slim comes out byte for byte the same.
//
// The new file replaces the old one at once, under a new inode, with the old
// mode; a process killed meanwhile leaves a file .rewrite-* beside the old one. A kept target that some bundle lacks is a *TargetError, and the file
// stays as it was.
func Slim(path string, keep []gfx.Target) (SlimStats, error) {
	if len(keep) == 0 {
		return SlimStats{}, errors.New("slim: no target to keep")
	}
	var stats SlimStats
	err := withFatBinary(path, func(fb *FatBinary, f *os.File) error {
		plan, err := planSlim(fb, keep)
		if err != nil {
			return err
		}
		stats = plan.stats
		return sparse.Rewrite(path, f, sparse.Edit{Zero: plan.zero})
	})
	return stats, err
}

type slimPlan struct {
	stats SlimStats
	zero  []sparse.Range // sorted, disjoint
}

func planSlim(fb *FatBinary, keep []gfx.Target) (*slimPlan, error) {
	p := new(slimPlan)
	var kept []sparse.Range
	for _, b := range fb.Bundles {
		if b.Compressed != nil {
			return nil, fmt.Errorf("bundle at offset %#x: %w", b.Offset, ErrCompressedBundle)
		}
		p.stats.Bundles++
		has := map[gfx.Target]bool{}
		for _, e := range b.Entries {
			if e.ID.Host() || e.Size == 0 {
				continue
			}
			t := e.ID.ID.Target
			x, sizeField := b.extents(e)
			if slices.Contains(keep, t) {
				has[t] = true
				p.stats.Kept++
				kept = append(kept, x)
				continue
			}
			p.stats.Removed++
			p.stats.Bytes += e.Size
			p.stats.Dropped = append(p.stats.Dropped, t)
			p.zero = append(p.zero, x, sizeField)
		}
		if lacks := missingTargets(keep, has); len(lacks) > 0 && len(b.Entries) > 0 {
			return nil, &TargetError{Where: fmt.Sprintf("the offload bundle at offset %#x", b.Offset), Lacks: lacks}
		}
	}
	gfx.Sort(p.stats.Dropped)
	p.stats.Dropped = slices.Compact(p.stats.Dropped)
	sort.Slice(p.zero, func(i, j int) bool { return p.zero[i].From < p.zero[j].From })
	for _, k := range kept {
		i := sort.Search(len(p.zero), func(i int) bool { return p.zero[i].To > k.From })
		if i < len(p.zero) && p.zero[i].From < k.To {
			return nil, &elfdep.FormatError{What: "offload bundle", Err: fmt.Errorf("code objects overlap at offset %#x", p.zero[i].From)}
		}
	}
	return p, nil
}

func missingTargets(want []gfx.Target, has map[gfx.Target]bool) []gfx.Target {
	var out []gfx.Target
	for _, t := range want {
		if !has[t] {
			out = append(out, t)
		}
	}
	return out
}
