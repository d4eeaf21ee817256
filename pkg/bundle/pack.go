package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

// DefaultFrameSize is the data of a frame in bytes before it is compressed.
const DefaultFrameSize = 64 << 20

// PackOptions tune Pack. The zero value is what releases use.
type PackOptions struct {
	// Encoder compresses frames; nil is GoEncoder(zstd.SpeedBestCompression, DefaultWindow).
	Encoder Encoder
	// FrameSize is the data of a frame in bytes, 0 for DefaultFrameSize.
	FrameSize int64
	// Workers is the number of frames encoded at a time, 0 for one a CPU. It
	// has no influence on the bytes.
	Workers int
}

// PackStats says what Pack wrote. All sizes are in bytes.
type PackStats struct {
	Files   int   // files in the pack, links included
	Links   int   // files stored as a link to an equal one
	Sparse  int   // files stored with holes
	Raw     int64 // sizes of all files
	Stored  int64 // data left after holes and links
	Packed  int64 // the pack itself
	Frames  []FrameStat
	Elapsed time.Duration
}

// FrameStat describes one frame of a pack.
type FrameStat struct {
	Group  string // "manifest", "core" or a target
	First  string // path of its first file
	Files  int
	Raw    int64 // bytes unpacked
	Packed int64
	Window int64 // bytes a decoder keeps
}

// Pack writes the bundle in dir, described by m, as a .tar.zst to w. Every
// file is checked against the manifest when it is read, and every frame is
// decoded again and hashed before it is written. The bytes depend on the
// content, the manifest and the encoder alone.
func Pack(ctx context.Context, w io.Writer, dir string, m *Manifest, o PackOptions) (PackStats, error) {
	began := time.Now()
	if o.Encoder == nil {
		o.Encoder = GoEncoder(zstd.SpeedBestCompression, DefaultWindow)
	}
	if o.FrameSize <= 0 {
		o.FrameSize = DefaultFrameSize
	}
	canonical, err := m.MarshalCanonical()
	if err != nil {
		return PackStats{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return PackStats{}, fmt.Errorf("open bundle folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	blobs, err := scanFiles(ctx, root, m, o.Workers)
	if err != nil {
		return PackStats{}, fmt.Errorf("pack %s: %w", m.Name, err)
	}
	plans := append([]*framePlan{{group: groupManifest}}, planFrames(blobs, m.Targets, o.FrameSize)...)
	plans[len(plans)-1].last = true

	p := packer{root: root, m: m, canonical: canonical, encode: o.Encoder}
	x := &index{Schema: indexSchema, Manifest: m.Digest()}
	stats, err := p.write(ctx, w, plans, x, o.Workers)
	if err != nil {
		return stats, fmt.Errorf("pack %s: %w", m.Name, err)
	}
	for _, b := range blobs {
		stats.Files += len(b.files)
		stats.Links += len(b.files) - 1
		stats.Stored += dataBytes(b.extents)
		if b.sparse {
			stats.Sparse++
		}
	}
	stats.Raw = m.Size()
	stats.Elapsed = time.Since(began)
	return stats, nil
}

type packer struct {
	root      *os.Root
	m         *Manifest
	canonical []byte
	encode    Encoder
}

type packed struct {
	frame frame
	bytes []byte
	done  chan struct{}
}

// write encodes the frames side by side, heaviest first, and writes them in
// their order as they come.
func (p *packer) write(ctx context.Context, w io.Writer, plans []*framePlan, x *index, workers int) (stats PackStats, err error) {
	results := make([]packed, len(plans))
	for i := range results {
		results[i].done = make(chan struct{})
	}
	order := byWeight(len(plans), func(i int) int64 {
		var n int64
		for _, b := range plans[i].blobs {
			n += b.stored()
		}
		return n
	})
	ctx, cancel := context.WithCancel(ctx)
	encoded := make(chan error, 1)
	go func() {
		err := parallel(ctx, len(order), workers, func(ctx context.Context, k int) error {
			i := order[k]
			b, f, err := p.frame(ctx, plans[i])
			if err != nil {
				return err
			}
			results[i].frame, results[i].bytes = f, b
			close(results[i].done)
			return nil
		})
		encoded <- err
		cancel()
	}()
	defer func() {
		cancel()
		if eerr := <-encoded; eerr != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = eerr
		}
	}()
	for i := range results {
		r := &results[i]
		select {
		case <-r.done:
		case <-ctx.Done():
			select {
			case <-r.done: // all is encoded
			default:
				return stats, ctx.Err()
			}
		}
		r.frame.Offset = stats.Packed
		n, err := w.Write(r.bytes)
		stats.Packed += int64(n)
		if err != nil {
			return stats, err
		}
		r.bytes = nil
		x.Frames = append(x.Frames, r.frame)
		stats.Frames = append(stats.Frames, r.frame.stat())
	}
	tail, err := x.encode()
	if err != nil {
		return stats, err
	}
	n, err := w.Write(tail)
	stats.Packed += int64(n)
	return stats, err
}

func (f *frame) stat() FrameStat {
	s := FrameStat{Group: f.Group, Files: len(f.Members), Raw: f.Raw, Packed: f.Length, Window: f.Window}
	if len(f.Members) > 0 {
		s.First = f.Members[0].Path
	}
	return s
}
