package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

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
	err := p.members(plan, func(t *tarMember, _ *blob) error {
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
