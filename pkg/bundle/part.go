package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Part is what one GPU target alone needs of a file that has code for several.
//
// A folder for one target need not hold the code of the others. Its file is
// then a projection: as long as the whole file and equal to it, but with the
// extents of all other parts as zeros, which a file system keeps as holes. For
// each target there is that one projection, and there is the whole file; a
// folder for two of three targets holds the whole file.
type Part struct {
	Target gfx.Target `json:"target"`
	// SHA256 is the lower-case hex digest of this target's projection.
	SHA256 string `json:"sha256"`
	// Extents are the bytes that other targets do without, ascending. They
	// overlap neither each other nor those of the file's other parts.
	Extents Extents `json:"extents,omitempty"`
}

// ProjectionFor returns the target whose projections a folder for these targets holds,
// or "" where it holds whole files: for all targets (nil) and for more than
// one. A folder for no target at all holds the projections of the first one.
func (m *Manifest) ProjectionFor(targets []gfx.Target) gfx.Target {
	switch {
	case targets == nil || len(targets) > 1 || len(m.Targets) < 2:
		return ""
	case len(targets) == 1:
		return targets[0]
	}
	return m.Targets[0]
}

// part returns the file's part of that target, nil if it has none.
func (f *File) part(t gfx.Target) *Part {
	i := slices.IndexFunc(f.Parts, func(p Part) bool { return p.Target == t })
	if i < 0 {
		return nil
	}
	return &f.Parts[i]
}

// others returns the extents that the target does without, ascending.
func (f *File) others(t gfx.Target) Extents {
	var out Extents
	for _, p := range f.Parts {
		if p.Target != t {
			out = append(out, p.Extents...)
		}
	}
	slices.SortFunc(out, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

// ProjectionTarget reports whether the digest is that of one of the file's
// projections, and of which target's. The whole file is none.
func (f *File) ProjectionTarget(sum string) (gfx.Target, bool) {
	i := slices.IndexFunc(f.Parts, func(p Part) bool { return p.SHA256 == sum })
	if i < 0 || sum == f.SHA256 {
		return "", false
	}
	return f.Parts[i].Target, true
}

// HasCode reports whether the file below root has what that target alone needs of
// it: true for one without a part of the target. A projection of another target
// has zeros there, and no code begins with a page of them; what follows the
// beginnings of the extents is not read. It is no check of the content.
func (f *File) HasCode(root *os.Root, t gfx.Target) (bool, error) {
	p := f.part(t)
	if p == nil || len(p.Extents) == 0 {
		return true, nil
	}
	in, err := root.Open(f.Path)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }()
	var page [holeBlock]byte
	for _, x := range p.Extents {
		n, err := in.ReadAt(page[:min(x.Size, holeBlock)], x.Offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if slices.ContainsFunc(page[:n], func(b byte) bool { return b != 0 }) {
			return true, nil
		}
	}
	return false, nil
}

// fits reports whether content with that digest will do in a folder for these
// targets: the whole file always, a projection if it lacks nothing they need.
func (f *File) fits(sum string, targets []gfx.Target) bool {
	if sum == f.SHA256 {
		return true
	}
	if targets == nil || len(targets) > 1 {
		return false
	}
	return slices.ContainsFunc(f.Parts, func(p Part) bool {
		return p.SHA256 == sum && (len(targets) == 0 || p.Target == targets[0])
	})
}

// sumFor is the digest that an unpacker for these targets writes.
func (f *File) sumFor(targets []gfx.Target) string {
	if len(targets) == 1 {
		if p := f.part(targets[0]); p != nil {
			return p.SHA256
		}
	}
	return f.SHA256
}

// projector is a writer that hashes a file's projections while it is read
// from its start.
type projector struct {
	hashes []hash.Hash
	others []Extents
	pos    int64
	buf    []byte
}

func newProjector(f *File) *projector {
	p := new(projector)
	for _, part := range f.Parts {
		p.hashes = append(p.hashes, sha256.New())
		p.others = append(p.others, f.others(part.Target))
	}
	return p
}

func (p *projector) Write(b []byte) (int, error) {
	for i, h := range p.hashes {
		p.buf = append(p.buf[:0], b...)
		p.others[i].clear(p.buf, p.pos)
		_, _ = h.Write(p.buf) // hash.Hash never fails
	}
	p.pos += int64(len(b))
	return len(b), nil
}

// sums returns the digests in the order of the parts.
func (p *projector) sums() []string {
	out := make([]string, len(p.hashes))
	for i, h := range p.hashes {
		out[i] = hex.EncodeToString(h.Sum(nil))
	}
	return out
}

// check compares the projections seen with what the manifest says.
func (p *projector) check(f *File) error {
	for i, sum := range p.sums() {
		if want := f.Parts[i].SHA256; sum != want {
			return fmt.Errorf("%w: sha256 without other code than that of %s is %s, the manifest says %s", ErrContent, f.Parts[i].Target, sum, want)
		}
	}
	return nil
}

// validateParts checks a file's parts against the bundle's targets.
func (f *File) validateParts(targets []gfx.Target) error {
	if len(f.Parts) == 0 {
		return nil
	}
	if f.Target != "" {
		return fmt.Errorf("it is for %s alone and has parts", f.Target)
	}
	if len(targets) < 2 || len(f.Parts) != len(targets) {
		return fmt.Errorf("%d parts for %d targets: want one for each of two or more", len(f.Parts), len(targets))
	}
	for i, p := range f.Parts {
		if p.Target != targets[i] {
			return fmt.Errorf("part %d is for %q: want the bundle's targets in their order", i, p.Target)
		}
		if !isHex(p.SHA256, 64) {
			return fmt.Errorf("part of %s: sha256 %q is not 64 lower-case hex digits", p.Target, p.SHA256)
		}
	}
	return f.validateExtents()
}

// validateExtents checks that the extents lie apart and inside the file.
func (f *File) validateExtents() error {
	for _, p := range f.Parts {
		if err := p.Extents.check(f.Size); err != nil {
			return fmt.Errorf("part of %s: %w", p.Target, err)
		}
	}
	all := f.others("") // no part is for no target
	if len(all) == 0 && len(f.Parts) > 0 {
		return errors.New("its parts hold nothing")
	}
	if err := all.check(f.Size); err != nil {
		return fmt.Errorf("parts of two targets: %w", err)
	}
	return nil
}

// equalParts reports whether two files are cut in the same way.
func equalParts(a, b []Part) bool {
	return slices.EqualFunc(a, b, func(a, b Part) bool {
		return a.Target == b.Target && a.SHA256 == b.SHA256 && slices.Equal(a.Extents, b.Extents)
	})
}
