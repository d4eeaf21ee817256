package bundle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Part describes the code that only one GPU target needs, in a file with code for
// several.
//
// A directory for one target does not need the code of the others. Its file is a
// projection: it has the size and content of the whole file, but the extents of
// all other parts are zero, which a file system stores as holes. There is one
// projection for each target. A directory for two of three targets contains the
// whole file.
type Part struct {
	Target gfx.Target `json:"target"`
	// SHA256 is the lower-case hex digest of this target's projection.
	SHA256 string `json:"sha256"`
	// Extents are the bytes that only this target needs, ascending. They overlap
	// neither each other nor the extents of the file's other parts.
	Extents Extents `json:"extents,omitempty"`
}

// ProjectionFor returns the target whose projections a directory for these targets
// contains, or "" if it contains whole files: for all targets (nil) and for more
// than one. A directory for no target contains the projections of the first one.
func (m *Manifest) ProjectionFor(targets []gfx.Target) gfx.Target {
	switch {
	case targets == nil || len(targets) > 1 || len(m.Targets) < 2:
		return ""
	case len(targets) == 1:
		return targets[0]
	}
	return m.Targets[0]
}

// partFor returns the file's part for that target, nil if it has none.
func (f *File) partFor(t gfx.Target) *Part {
	i := slices.IndexFunc(f.Parts, func(p Part) bool { return p.Target == t })
	if i < 0 {
		return nil
	}
	return &f.Parts[i]
}

// otherExtents returns the extents that the target does not need, ascending.
func (f *File) otherExtents(t gfx.Target) Extents {
	var out Extents
	for _, p := range f.Parts {
		if p.Target != t {
			out = append(out, p.Extents...)
		}
	}
	slices.SortFunc(out, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

// ProjectionTarget returns the target whose projection of the file has that
// digest. The whole file is not a projection.
func (f *File) ProjectionTarget(sum string) (gfx.Target, bool) {
	i := slices.IndexFunc(f.Parts, func(p Part) bool { return p.SHA256 == sum })
	if i < 0 || sum == f.SHA256 {
		return "", false
	}
	return f.Parts[i].Target, true
}

// HasCode reports whether the file below root contains the code of its part for
// that target; it is true for a file without such a part. HasCode reads the first
// page of each extent until one is not zero: a projection of another target has
// zeros there, and no code begins with a page of zeros. It does not verify the
// content.
func (f *File) HasCode(root *os.Root, t gfx.Target) (bool, error) {
	p := f.partFor(t)
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

// accepts reports whether content with that digest is valid in a directory for
// these targets: the whole file always, a projection if it has their code.
func (f *File) accepts(sum string, targets []gfx.Target) bool {
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

// digestFor returns the digest of the file as it is unpacked for these targets.
func (f *File) digestFor(targets []gfx.Target) string {
	if len(targets) == 1 {
		if p := f.partFor(targets[0]); p != nil {
			return p.SHA256
		}
	}
	return f.SHA256
}

// projector is a writer that hashes the projections of the file written to it.
type projector struct {
	hashes []hash.Hash
	masks  []Extents
	pos    int64
	buf    []byte
}

func newProjector(f *File) *projector {
	p := new(projector)
	for _, part := range f.Parts {
		p.hashes = append(p.hashes, sha256.New())
		p.masks = append(p.masks, f.otherExtents(part.Target))
	}
	return p
}

func (p *projector) Write(b []byte) (int, error) {
	for i, h := range p.hashes {
		p.buf = append(p.buf[:0], b...)
		p.masks[i].clear(p.buf, p.pos)
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

// check compares the digests with the manifest.
func (p *projector) check(f *File) error {
	for i, sum := range p.sums() {
		if want := f.Parts[i].SHA256; sum != want {
			return fmt.Errorf("%w: sha256 of the projection for %s is %s, the manifest says %s", ErrContent, f.Parts[i].Target, sum, want)
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
		return fmt.Errorf("parts in a file for %s alone", f.Target)
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

// validateExtents checks that the extents are inside the file and do not overlap.
func (f *File) validateExtents() error {
	for _, p := range f.Parts {
		if err := p.Extents.check(f.Size); err != nil {
			return fmt.Errorf("part of %s: %w", p.Target, err)
		}
	}
	all := f.otherExtents("") // all parts, since none has an empty target
	if len(all) == 0 && len(f.Parts) > 0 {
		return errors.New("all parts are empty")
	}
	if err := all.check(f.Size); err != nil {
		return fmt.Errorf("parts of two targets: %w", err)
	}
	return nil
}

// equalParts reports whether the parts of two files are equal.
func equalParts(a, b []Part) bool {
	return slices.EqualFunc(a, b, func(a, b Part) bool {
		return a.Target == b.Target && a.SHA256 == b.SHA256 && slices.Equal(a.Extents, b.Extents)
	})
}

// Extent is a run of bytes in a file.
type Extent struct{ Offset, Size int64 }

// end returns the offset after the extent.
func (e Extent) end() int64 { return e.Offset + e.Size }

// Extents are runs of bytes in a file, ascending. Their text form, also in a
// manifest, is "OFFSET+SIZE OFFSET+SIZE …" in decimal: a fat binary has hundreds
// of them, and JSON objects would dominate the time of parsing a manifest.
type Extents []Extent

// MarshalText implements encoding.TextMarshaler.
func (x Extents) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 20*len(x))
	for i, e := range x {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(strconv.AppendInt(b, e.Offset, 10), '+')
		b = strconv.AppendInt(b, e.Size, 10)
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler. Numbers must be below
// 10^18. Manifest.Validate checks everything else.
func (x *Extents) UnmarshalText(text []byte) error {
	out := make(Extents, 0, min(bytes.Count(text, []byte{'+'}), len(text)/len("0+0 ")+1))
	for rest := text; ; {
		var e Extent
		var ok1, ok2 bool
		e.Offset, rest, ok1 = digits(rest)
		if !ok1 || len(rest) == 0 || rest[0] != '+' {
			return errors.New("extents: want OFFSET+SIZE")
		}
		if e.Size, rest, ok2 = digits(rest[1:]); !ok2 {
			return errors.New("extents: want OFFSET+SIZE")
		}
		out = append(out, e)
		if len(rest) == 0 {
			*x = out
			return nil
		}
		if rest[0] != ' ' {
			return errors.New("extents: want a single space between two")
		}
		rest = rest[1:]
	}
}

// digits parses a number of 1 to 18 digits at the start of b.
func digits(b []byte) (v int64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		v = v*10 + int64(b[i]-'0')
		if i == 18 {
			return 0, b, false
		}
	}
	return v, b[i:], i > 0
}

// clear sets the bytes of b to zero that are in the extents, where b is the
// content of the file at offset off. It reports whether there were any.
func (x Extents) clear(b []byte, off int64) bool {
	i, _ := slices.BinarySearchFunc(x, off, func(e Extent, off int64) int {
		if e.end() <= off {
			return -1
		}
		return 1
	})
	first, end := i, off+int64(len(b))
	for ; i < len(x) && x[i].Offset < end; i++ {
		clear(b[max(x[i].Offset-off, 0):min(x[i].end()-off, int64(len(b)))])
	}
	return i > first
}

// check rejects extents that are empty, outside a file of that size, or not in
// ascending order.
func (x Extents) check(size int64) error {
	var end int64
	for _, e := range x {
		switch {
		case e.Offset < 0 || e.Size <= 0 || e.Offset > size || e.Size > size-e.Offset:
			return fmt.Errorf("extent %d+%d in a file of %d bytes", e.Offset, e.Size, size)
		case e.Offset < end:
			return fmt.Errorf("extent %d+%d begins before %d, the end of the previous one", e.Offset, e.Size, end)
		}
		end = e.end()
	}
	return nil
}
