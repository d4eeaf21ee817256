package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// blob is one content to store, with the files that have it. The first file
// becomes a regular tar member, the others become hard links to it.
type blob struct {
	files   []File
	extents []extent
	sparse  bool
}

func (b *blob) file() File { return b.files[0] }

// stored returns the size of the member in the archive.
func (b *blob) stored() int64 {
	n := dataBytes(b.extents)
	if b.sparse {
		n += int64(len(sparseMap(b.extents, b.file().Size)))
	}
	return n
}

// framePlan is a frame before it is encoded.
type framePlan struct {
	group string
	blobs []*blob
	last  bool // ends with the two zero blocks that end a tar archive
}

// planFrames divides the blobs of each group into frames of about frameSize bytes
// of data; a larger file has a frame of its own. The core group comes first, so
// that a reader for one target reads the start of the pack and one further range.
func planFrames(blobs []*blob, targets []gfx.Target, frameSize int64) []*framePlan {
	groups := []string{groupCore}
	for _, t := range targets {
		groups = append(groups, string(t))
	}
	var plans []*framePlan
	for _, g := range groups {
		var cur *framePlan
		var n int64
		for _, b := range blobs {
			if b.group() != g {
				continue
			}
			size := b.stored()
			if cur == nil || n+size > frameSize {
				cur, n = &framePlan{group: g}, 0
				plans = append(plans, cur)
			}
			cur.blobs = append(cur.blobs, b)
			n += size
		}
	}
	return plans
}

// group returns the only target that needs the content, else groupCore.
func (b *blob) group() string {
	t := b.file().Target
	for _, f := range b.files[1:] {
		if f.Target != t {
			return groupCore
		}
	}
	if t == "" {
		return groupCore
	}
	return string(t)
}

// scanFiles reads every file of the manifest once, compares it with the manifest,
// finds its holes, and groups equal files. The result is sorted by the first path
// of each blob.
func scanFiles(ctx context.Context, root *os.Root, m *Manifest, workers int) ([]*blob, error) {
	scanned := make([]*blob, len(m.Files))
	err := forEach(ctx, len(m.Files), workers, func(ctx context.Context, i int) error {
		b, err := scanFile(ctx, root, m.Files[i])
		scanned[i] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	groups := groupEqual(m.Files)
	out := make([]*blob, len(groups))
	for k, g := range groups {
		out[k] = scanned[g[0]]
		for _, i := range g[1:] {
			out[k].files = append(out[k].files, m.Files[i])
		}
	}
	return out, nil
}

func scanFile(ctx context.Context, root *os.Root, f File) (*blob, error) {
	in, err := root.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() != f.Size {
		return nil, fmt.Errorf("%w: %s is a %s of %d bytes, the manifest says a file of %d", ErrContent, f.Path, regfile.Kind(st.Mode().Type()), st.Size(), f.Size)
	}
	h, projections := sha256.New(), newProjector(&f)
	ext, size, err := scanExtents(ctxio.Reader(ctx, in), io.MultiWriter(h, projections))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); size != f.Size || sum != f.SHA256 {
		return nil, fmt.Errorf("%w: %s has sha256 %s, the manifest says %s", ErrContent, f.Path, sum, f.SHA256)
	}
	if err := projections.check(&f); err != nil {
		return nil, err
	}
	b := &blob{files: []File{f}}
	b.extents, b.sparse = chooseSparse(ext, size)
	return b, nil
}
