package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// frame encodes one frame, decodes it again and checks every file in it.
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

// layout is the frame's part of the archive.
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

// stream writes the frame's tar bytes.
func (p *packer) stream(ctx context.Context, w io.Writer, plan *framePlan, l *layout) error {
	for i := 0; ; i++ {
		g, err := l.gap(i)
		if err != nil {
			return err
		}
		if _, err := w.Write(g); err != nil {
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

// check decodes an encoded frame, compares the tar headers and hashes the files.
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
