package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Reader reads a packed bundle. It is safe for concurrent use.
type Reader struct {
	r         io.ReaderAt
	index     *index
	manifest  *Manifest
	canonical []byte
	// bySum maps the digest of a file to its content.
	bySum map[string]location
}

// location is the frame and the member with a content.
type location struct{ frame, member int }

// Open reads the index and the manifest of a pack of size bytes and compares
// them. It reads nothing else. The error wraps ErrNotPack if the file is not a
// pack or is truncated.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	x, err := readIndex(r, size)
	if err != nil {
		return nil, err
	}
	p := &Reader{r: r, index: x}
	if err := p.readManifest(); err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	if err := p.matchManifest(); err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	return p, nil
}

// PackFile is a Reader of a file. The caller closes it.
type PackFile struct {
	*Reader
	f *os.File
}

// Close closes the file.
func (p *PackFile) Close() error { return p.f.Close() }

// OpenFile opens the packed bundle at path.
func OpenFile(path string) (*PackFile, error) {
	f, err := regfile.Open(path)
	if errors.Is(err, regfile.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", ErrNotPack, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	var r *Reader
	st, err := f.Stat()
	if err == nil {
		r, err = Open(f, st.Size())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &PackFile{Reader: r, f: f}, nil
}

// Manifest returns the pack's manifest; callers must not change it.
func (r *Reader) Manifest() *Manifest { return r.manifest }

// Digest returns the bundle's content address. Unlike Manifest.Digest, it hashes
// nothing.
func (r *Reader) Digest() string { return r.index.Manifest }

// ManifestBytes returns the canonical manifest; callers must not change it.
func (r *Reader) ManifestBytes() []byte { return r.canonical }

// selection is a set of files and the location of their content.
type selection struct {
	frames []int             // of the index, ascending
	files  map[string][]File // by the path of the member with their content
}

// selectFiles returns the selection of the wanted files; nil selects all.
func (r *Reader) selectFiles(want func(File) bool) selection {
	s := selection{files: make(map[string][]File)}
	frames := make([]bool, len(r.index.Frames))
	for _, f := range r.manifest.Files {
		if want != nil && !want(f) {
			continue
		}
		p := r.bySum[f.SHA256]
		frames[p.frame] = true
		path := r.index.Frames[p.frame].Members[p.member].Path
		s.files[path] = append(s.files[path], f)
	}
	for i, used := range frames {
		if used {
			s.frames = append(s.frames, i)
		}
	}
	return s
}

// PackedSize returns the packed size in bytes of the frames that the selected
// files need; nil selects all.
func (r *Reader) PackedSize(want func(File) bool) int64 {
	n := r.index.Frames[0].Length
	for _, i := range r.selectFiles(want).frames {
		n += r.index.Frames[i].Length
	}
	return n
}

// DiskUsage returns the disk space that the selected files need: bytes in whole
// blocks of 4096, without holes and additional hard links, and inodes, without
// directories. Nil selects all; only is ExtractOptions.Projection. A block that is
// only partly code of another target counts, though it may become a hole. All code
// that is left out is assumed to be data, since the index does not record the
// holes in it.
func (r *Reader) DiskUsage(want func(File) bool, only gfx.Target) (bytes, inodes int64) {
	for path := range r.selectFiles(want).files {
		f, _ := r.manifest.File(path)
		p := r.bySum[f.SHA256]
		n := r.index.Frames[p.frame].Members[p.member].Stored
		if f.partFor(only) != nil {
			for _, e := range f.otherExtents(only) {
				n -= max(e.end()/holeBlock-(e.Offset+holeBlock-1)/holeBlock, 0) * holeBlock
			}
		}
		bytes += (max(n, 0) + holeBlock - 1) / holeBlock * holeBlock
		inodes++
	}
	return bytes, inodes
}

func (r *Reader) readManifest() error {
	f := &r.index.Frames[0]
	if len(f.Members) != 1 || f.Members[0].Path != ManifestName || f.Raw > MaxManifestSize+2*tarBlock || f.Members[0].Sparse {
		return fmt.Errorf("%w: the first frame must contain %s alone", ErrNotPack, ManifestName)
	}
	d, err := newFrameDecoder(f.decoderWindow())
	if err != nil {
		return err
	}
	defer d.close()
	s := &byteSink{got: make([]byte, 0, f.Members[0].Stored)}
	err = d.decode(context.Background(), r.section(f), f, nil, func(path string, stored int64) (File, sink) {
		return File{Path: path, Size: stored}, s
	})
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(s.got); hex.EncodeToString(sum[:]) != r.index.Manifest {
		return fmt.Errorf("%w: the manifest is not the one that the index names", ErrContent)
	}
	r.canonical = s.got
	r.manifest, err = ParseManifest(s.got)
	return err
}

func (r *Reader) section(f *frame) *io.SectionReader {
	return io.NewSectionReader(r.r, f.Offset, f.Length)
}

// matchManifest compares the index with the manifest: each member must be one of
// its files with a plausible size, and each file's content must be stored once.
// Then the manifest's sizes limit what any frame can make a reader write.
func (r *Reader) matchManifest() error {
	r.bySum = make(map[string]location, len(r.manifest.Files))
	seen := make(map[string]bool, len(r.manifest.Files))
	for i := 1; i < len(r.index.Frames); i++ {
		f := &r.index.Frames[i]
		raw := int64(2 * tarBlock)
		for j, m := range f.Members {
			file, ok := r.manifest.File(m.Path)
			switch {
			case !ok:
				return fmt.Errorf("%w: %q is in the index and not in the manifest", ErrContent, m.Path)
			case seen[m.Path]:
				return fmt.Errorf("%w: %s is stored twice", ErrContent, m.Path)
			case !m.Sparse && m.Stored != file.Size, m.Sparse && m.Stored > file.Size+maxMapSize:
				return fmt.Errorf("%w: %s has %d bytes in the index and %d in the manifest", ErrContent, m.Path, m.Stored, file.Size)
			}
			seen[m.Path] = true
			if _, ok := r.bySum[file.SHA256]; !ok {
				r.bySum[file.SHA256] = location{i, j}
			}
			raw += m.Stored
		}
		if f.Raw > raw+int64(len(r.manifest.Files)+1)*maxHeaders {
			return fmt.Errorf("%w: a frame of %d bytes for files of %d", ErrContent, f.Raw, raw)
		}
	}
	for i := range r.manifest.Files {
		f := &r.manifest.Files[i]
		p := r.bySum[f.SHA256]
		if p.frame == 0 {
			return fmt.Errorf("%w: %s is in the manifest and not in the pack", ErrContent, f.Path)
		}
		if same, _ := r.manifest.File(r.index.Frames[p.frame].Members[p.member].Path); same.Size != f.Size {
			return fmt.Errorf("%w: %s has the sha256 of %s, but another size", ErrContent, f.Path, same.Path)
		}
	}
	return nil
}
