package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	Files  int   // files in the pack, links included
	Links  int   // files stored as a link to an equal one
	Sparse int   // files stored with holes
	Raw    int64 // sizes of all files
	Stored int64 // data left after holes and links
	Packed int64 // the pack itself
	Frames []FrameStat
	Took   time.Duration
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
	stats.Took = time.Since(began)
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

// frame encodes one frame, decodes it again and checks every file in it.
func (p *packer) frame(ctx context.Context, plan *framePlan) ([]byte, frame, error) {
	f, err := p.layout(plan)
	if err != nil {
		return nil, f, err
	}
	pr, pw := io.Pipe()
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		_ = pw.CloseWithError(p.stream(ctx, pw, plan))
	}()
	var out bytes.Buffer
	err = p.encode(ctx, &out, pr, f.Raw)
	_ = pr.CloseWithError(errors.New("the encoder stopped reading"))
	<-writing
	if err != nil {
		return nil, f, fmt.Errorf("encode frame of %s: %w", f.stat().First, err)
	}
	f.Length = int64(out.Len())
	if f.Window, err = frameWindow(out.Bytes()); err != nil {
		return nil, f, fmt.Errorf("encode frame of %s: %w", f.stat().First, err)
	}
	if err := p.check(ctx, out.Bytes(), &f); err != nil {
		return nil, f, fmt.Errorf("encoded frame of %s does not decode to its input: %w", f.stat().First, err)
	}
	return slices.Clip(out.Bytes()), f, nil
}

// frameWindow reads the window from a frame's header.
func frameWindow(b []byte) (int64, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, fmt.Errorf("no zstd frame: %w", err)
	}
	if h.Skippable || h.DictionaryID != 0 {
		return 0, errors.New("the frame is skippable or needs a dictionary")
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if window > MaxWindow {
		return 0, fmt.Errorf("the window of %d bytes is larger than %d", window, int64(MaxWindow))
	}
	return int64(window), nil
}

// layout computes where each member's data will be in the frame.
func (p *packer) layout(plan *framePlan) (frame, error) {
	f := frame{Group: plan.group}
	err := p.members(plan, func(t *tarMember, b *blob) error {
		h, err := t.headers()
		if err != nil {
			return err
		}
		f.Raw += int64(len(h))
		if t.link == "" {
			f.Members = append(f.Members, member{Path: t.name, Data: f.Raw, Stored: t.size, Sparse: t.sparse})
			f.Raw += t.size + padding(t.size)
		}
		return nil
	})
	if plan.last {
		f.Raw += 2 * tarBlock
	}
	return f, err
}

// members calls do for every tar member of the frame in order; b is nil for
// the manifest.
func (p *packer) members(plan *framePlan, do func(t *tarMember, b *blob) error) error {
	mtime := p.m.SourceDateEpoch
	if plan.group == groupManifest {
		if err := do(&tarMember{name: ManifestName, size: int64(len(p.canonical)), mode: 0o644, mtime: mtime}, nil); err != nil {
			return err
		}
	}
	for _, b := range plan.blobs {
		f := b.file()
		t := &tarMember{name: f.Path, size: b.stored(), mode: f.Mode, mtime: mtime, sparse: b.sparse, real: f.Size}
		if err := do(t, b); err != nil {
			return err
		}
		for _, l := range b.files[1:] {
			if err := do(&tarMember{name: l.Path, mode: l.Mode, mtime: mtime, link: f.Path}, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream writes the frame's tar bytes.
func (p *packer) stream(ctx context.Context, w io.Writer, plan *framePlan) error {
	err := p.members(plan, func(t *tarMember, b *blob) error {
		h, err := t.headers()
		if err != nil {
			return err
		}
		if _, err := w.Write(h); err != nil {
			return err
		}
		switch {
		case t.link != "":
			return nil
		case b == nil:
			_, err = w.Write(p.canonical)
		default:
			err = p.content(ctx, w, b)
		}
		if err != nil {
			return err
		}
		_, err = w.Write(make([]byte, padding(t.size)))
		return err
	})
	if err == nil && plan.last {
		_, err = w.Write(make([]byte, 2*tarBlock))
	}
	return err
}

func (p *packer) content(ctx context.Context, w io.Writer, b *blob) error {
	f := b.file()
	in, err := p.root.Open(f.Path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if b.sparse {
		if _, err := w.Write(sparseMap(b.extents, f.Size)); err != nil {
			return err
		}
	}
	for _, e := range b.extents {
		n, err := io.Copy(w, contextReader{ctx, io.NewSectionReader(in, e.off, e.len)})
		if err != nil {
			return err
		}
		if n != e.len {
			return fmt.Errorf("%w: %s shrank while it was packed", ErrContent, f.Path)
		}
	}
	return nil
}

// check decodes an encoded frame and hashes what comes out.
func (p *packer) check(ctx context.Context, b []byte, f *frame) error {
	d, err := newFrameDecoder(max(f.Window, minWindow))
	if err != nil {
		return err
	}
	defer d.close()
	return d.decode(ctx, bytes.NewReader(b), f, func(path string, stored int64) (File, sink) {
		if f.Group == groupManifest {
			return File{Path: path, Size: stored}, &byteSink{want: p.canonical}
		}
		file, _ := p.m.File(path)
		return file, newHashSink()
	})
}
