package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// DefaultFrameSize is the uncompressed size of a frame in bytes.
const DefaultFrameSize = 64 << 20

// PackOptions tune Pack. The zero value needs no external program.
type PackOptions struct {
	// Encoder compresses frames; nil means GoEncoder(zstd.SpeedBestCompression, DefaultWindow).
	Encoder Encoder
	// FrameSize is the uncompressed size of a frame in bytes; 0 means DefaultFrameSize.
	FrameSize int64
	// Workers is the number of frames encoded at a time; 0 means one for each CPU.
	// It does not change the bytes.
	Workers int
}

// PackStats describes a pack. All sizes are in bytes.
type PackStats struct {
	Files   int   // files in the pack, including links
	Links   int   // files stored as a hard link to an equal file
	Sparse  int   // files stored with holes
	Raw     int64 // total size of all files
	Stored  int64 // data without holes and links
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
	Window int64 // that a decoder needs
}

// Pack writes the bundle in dir, described by m, as a .tar.zst to w. Pack checks
// every file against the manifest while reading it, and decodes and hashes every
// frame before writing it. The bytes depend only on the content, the manifest and
// the encoder.
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
		return PackStats{}, fmt.Errorf("open bundle directory: %w", err)
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

// write encodes several frames at a time, heaviest first, and writes them in
// order.
func (p *packer) write(ctx context.Context, w io.Writer, plans []*framePlan, x *index, workers int) (stats PackStats, err error) {
	results := make([]packed, len(plans))
	for i := range results {
		results[i].done = make(chan struct{})
	}
	order := heaviestFirst(len(plans), func(i int) int64 {
		var n int64
		for _, b := range plans[i].blobs {
			n += b.stored()
		}
		return n
	})
	ctx, cancel := context.WithCancel(ctx)
	encoded := make(chan error, 1)
	go func() {
		err := forEach(ctx, len(order), workers, func(ctx context.Context, k int) error {
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
			case <-r.done: // the context ended because all frames are encoded
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

// frame encodes one frame, decodes it and verifies every file in it.
func (p *packer) frame(ctx context.Context, plan *framePlan) ([]byte, frame, error) {
	f, l := frame{Group: plan.group}, p.layout(plan)
	var err error
	if f.Raw, f.Members, err = l.measure(); err != nil {
		return nil, f, err
	}
	pr, pw := io.Pipe()
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		_ = pw.CloseWithError(p.stream(ctx, pw, plan, &l))
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
	if err := p.check(ctx, out.Bytes(), &f, &l); err != nil {
		return nil, f, fmt.Errorf("encoded frame of %s does not decode to its input: %w", f.stat().First, err)
	}
	return slices.Clip(out.Bytes()), f, nil
}

// frameWindow reads the window from a frame's header.
func frameWindow(b []byte) (int64, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, fmt.Errorf("not a zstd frame: %w", err)
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

// layout returns the layout of the frame.
func (p *packer) layout(plan *framePlan) layout {
	l := layout{mtime: p.m.SourceDateEpoch, last: plan.last}
	if plan.group == groupManifest {
		l.entries = append(l.entries, manifestEntry(p.canonical))
	}
	for _, b := range plan.blobs {
		l.entries = append(l.entries, entry{files: b.files, stored: b.stored(), sparse: b.sparse})
	}
	return l
}

// stream writes the tar bytes of the frame.
func (p *packer) stream(ctx context.Context, w io.Writer, plan *framePlan, l *layout) error {
	for i := 0; ; i++ {
		h, err := l.headers(i)
		if err != nil {
			return err
		}
		if _, err := w.Write(h); err != nil {
			return err
		}
		switch {
		case i == len(l.entries):
			return nil
		case plan.group == groupManifest:
			_, err = w.Write(p.canonical)
		default:
			err = p.content(ctx, w, plan.blobs[i])
		}
		if err != nil {
			return err
		}
	}
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
		n, err := io.Copy(w, ctxio.Reader(ctx, io.NewSectionReader(in, e.off, e.len)))
		if err != nil {
			return err
		}
		if n != e.len {
			return fmt.Errorf("%w: %s shrank while it was packed", ErrContent, f.Path)
		}
	}
	return nil
}

// check decodes an encoded frame, compares its tar headers and hashes its files.
func (p *packer) check(ctx context.Context, b []byte, f *frame, l *layout) error {
	d, err := newFrameDecoder(f.decoderWindow())
	if err != nil {
		return err
	}
	defer d.close()
	return d.decode(ctx, bytes.NewReader(b), f, l, func(path string, stored int64) (File, sink) {
		if f.Group == groupManifest {
			return File{Path: path, Size: stored}, &byteSink{want: p.canonical}
		}
		file, _ := p.m.File(path)
		return file, newHashSink()
	})
}

// MaxWindow is the largest zstd window of a pack in bytes: 2^27, the largest that
// the zstd command accepts by default (ZSTD_WINDOWLOG_LIMIT_DEFAULT).
const MaxWindow = 128 << 20

// DefaultWindow is the usual window of a frame in bytes. Decoding needs one window
// for each frame that is decoded at the same time; docs/pack.md lists sizes and
// memory by window.
const DefaultWindow = 8 << 20

// An Encoder compresses size bytes from src into exactly one zstd frame. It
// must be deterministic: equal input results in equal output. Several goroutines
// may call it at once.
type Encoder func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error

// GoEncoder returns an Encoder that needs no external program:
// klauspost/compress at that level (zstd.SpeedDefault … zstd.SpeedBestCompression)
// and window.
func GoEncoder(level zstd.EncoderLevel, window int) Encoder {
	return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return fmt.Errorf("zstd encoder: %w", err)
		}
		enc.ResetContentSize(dst, size)
		if _, err := io.Copy(enc, ctxio.Reader(ctx, src)); err != nil {
			_ = enc.Close()
			return err
		}
		return enc.Close()
	}
}

// CommandEncoder returns an Encoder that runs a program as a filter from standard
// input to standard output: the arguments of ZstdCommand, or a `docker exec -i`
// around them. The program must not write to the terminal.
func CommandEncoder(argv func(size int64) []string) Encoder {
	return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
		args := argv(size)
		if len(args) == 0 {
			return errors.New("zstd encoder: empty command")
		}
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = src, dst, &stderr
		if err := cmd.Run(); err != nil {
			if msg := bytes.TrimSpace(stderr.Bytes()); len(msg) > 0 {
				return fmt.Errorf("run %s: %w: %s", args[0], err, msg)
			}
			return fmt.Errorf("run %s: %w", args[0], err)
		}
		return nil
	}
}

// ZstdCommand returns the arguments of the zstd program for one frame at that
// level (1 to 22) and window logarithm (10 to 27). It uses one thread: several
// frames are encoded at a time, and the bytes must not depend on the machine.
func ZstdCommand(level, windowLog int) func(size int64) []string {
	return func(size int64) []string {
		return []string{
			"zstd", "-q", "-c", "--no-progress", "--single-thread", "--check", "--ultra",
			"-" + strconv.Itoa(level), "--zstd=wlog=" + strconv.Itoa(windowLog),
			"--stream-size=" + strconv.FormatInt(size, 10), "-",
		}
	}
}

// WindowLog returns the binary logarithm of the window for a frame of size bytes:
// 32 MiB for the few large libraries, whose repetitions are far apart, and 8 MiB
// for the rest, which hardly gains from more (figures in docs/pack.md). A reader
// needs at most one large window at a time.
func WindowLog(size int64) int {
	if size > 96<<20 {
		return 25
	}
	return 23
}
