package offload

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Extent is a run of bytes in a file.
type Extent struct{ Offset, Size int64 }

// TargetExtents are the bytes of a fat binary that one target alone needs.
type TargetExtents struct {
	Target  gfx.Target
	Extents []Extent // ascending, and apart from those of other shares
}

// extents returns where an entry's code is in the file, and where the bundle's
// table has its size.
func (b *Bundle) extents(e Entry) (code, sizeField sparse.Range) {
	at := b.Offset + e.Offset
	field := b.Offset + e.sizeField
	return sparse.Range{From: at, To: at + e.Size}, sparse.Range{From: field, To: field + 8}
}

// ReadTargetExtents lists the extents that only one target needs of the ELF file at path, in
// the order of gfx.Compare: its code objects, and their sizes in the tables of the bundles. If
// the extents of all targets but one are zero, the file is identical to the result of Slim for
// that target, and the HIP runtime finds no code for the others instead of broken code. The
// error is ErrNoFatBinary if there is no GPU code, and ErrCompressedBundle if the code is
// compressed.
func ReadTargetExtents(path string) ([]TargetExtents, error) {
	var out []TargetExtents
	err := withFatBinary(path, func(fb *FatBinary, _ *os.File) (err error) {
		out, err = fb.TargetExtents()
		return err
	})
	return out, err
}

// TargetExtents is ReadTargetExtents of an open fat binary.
func (fb *FatBinary) TargetExtents() ([]TargetExtents, error) {
	byTarget := make(map[gfx.Target][]Extent)
	var all []sparse.Range
	for i := range fb.Bundles {
		b := &fb.Bundles[i]
		if b.Compressed != nil {
			return nil, fmt.Errorf("bundle at offset %#x: %w", b.Offset, ErrCompressedBundle)
		}
		for _, e := range b.Entries {
			if e.ID.Host() || e.Size == 0 {
				continue
			}
			code, field := b.extents(e)
			t := e.ID.ID.Target
			for _, x := range []sparse.Range{code, field} {
				byTarget[t] = append(byTarget[t], Extent{x.From, x.To - x.From})
				all = append(all, x)
			}
		}
	}
	slices.SortFunc(all, func(a, b sparse.Range) int { return cmp.Compare(a.From, b.From) })
	for i := 1; i < len(all); i++ {
		if all[i].From < all[i-1].To {
			return nil, &elfdep.FormatError{What: "offload bundle", Err: fmt.Errorf("code objects overlap at offset %#x", all[i].From)}
		}
	}
	var out []TargetExtents
	for t, extents := range byTarget {
		slices.SortFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
		out = append(out, TargetExtents{t, extents})
	}
	slices.SortFunc(out, func(a, b TargetExtents) int { return gfx.Compare(a.Target, b.Target) })
	return out, nil
}
