package offload

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

const (
	bundleMagic     = "__CLANG_OFFLOAD_BUNDLE__"
	compressedMagic = "CCOB"

	// FatBinarySection is where clang puts HIP's offload bundles.
	FatBinarySection = ".hip_fatbin"

	maxEntries = 1024 // of one bundle; rocBLAS has twelve
	maxIDLen   = 1024
)

// ErrNoFatBinary reports that a file has no GPU code.
var ErrNoFatBinary = errors.New("no " + FatBinarySection + " section: the file has no GPU code")

// Entry is one code object of an offload bundle.
type Entry struct {
	ID     gfx.BundleID
	Offset int64 // from the start of the bundle (of the unpacked one, if compressed)
	Size   int64 // bytes; 0 for the host's entry and for one that Slim took out

	sizeField int64 // offset of the field with Size, from the start of the bundle
}

// Bundle is one offload bundle: what one translation unit was compiled to.
type Bundle struct {
	Offset     int64 // in the file
	Size       int64 // bytes in the file, from magic to the end of the last entry
	Compressed *Compression
	Entries    []Entry

	head int64 // bytes before the compressed ones, where Compressed
}

// FatBinary is the GPU code of one file.
type FatBinary struct {
	Offset, Size int64 // of the section, in the file
	Bundles      []Bundle

	r io.ReaderAt
}

// ReadFatBinary lists the offload bundles of an ELF file. The error is
// ErrNoFatBinary when it has none.
func ReadFatBinary(r io.ReaderAt) (*FatBinary, error) {
	f, err := elfdep.Open(r)
	if err != nil {
		return nil, err
	}
	return fatBinaryOf(f, r)
}

func fatBinaryOf(f *elf.File, r io.ReaderAt) (*FatBinary, error) {
	s := f.Section(FatBinarySection)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, ErrNoFatBinary
	}
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, &elfdep.FormatError{What: "fat binary section", Err: errors.New("compressed as a section, which HIP does not read")}
	}
	off, size := int64(s.Offset), int64(s.FileSize) //nolint:gosec // both checked below
	if off < 0 || size < 0 || off+size < off {
		return nil, &elfdep.FormatError{What: "fat binary section", Err: errors.New("offset or size out of range")}
	}
	bundles, err := ReadBundles(r, off, size)
	if err != nil {
		return nil, err
	}
	return &FatBinary{Offset: off, Size: size, Bundles: bundles, r: r}, nil
}

// ReadBundles reads the concatenated offload bundles of r[off:off+size], with
// any number of zero bytes between them. Bundles may be plain or compressed.
func ReadBundles(r io.ReaderAt, off, size int64) ([]Bundle, error) {
	var out []Bundle
	end := off + size
	for {
		at, err := skipZeros(r, off, end)
		if err != nil {
			return nil, err
		}
		if at == end {
			return out, nil
		}
		b, err := readBundle(r, at, end-at)
		if err != nil {
			return nil, &elfdep.FormatError{What: "offload bundle", Err: fmt.Errorf("at offset %#x: %w", at, err)}
		}
		out = append(out, *b)
		off = at + b.Size
	}
}

// skipZeros returns the offset of the first byte that is not zero, or end.
func skipZeros(r io.ReaderAt, off, end int64) (int64, error) {
	buf := make([]byte, 1<<16)
	for off < end {
		n := min(int64(len(buf)), end-off)
		if err := readFull(r, buf[:n], off); err != nil {
			return 0, &elfdep.FormatError{What: "offload bundle", Err: fmt.Errorf("reading at %#x: %w", off, err)}
		}
		if rest := bytes.TrimLeft(buf[:n], "\x00"); len(rest) > 0 {
			return off + n - int64(len(rest)), nil
		}
		off += n
	}
	return end, nil
}

// readFull fills b. A reader may report the end of its data together with the
// last bytes.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return noEOF(err)
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func readBundle(r io.ReaderAt, off, limit int64) (*Bundle, error) {
	head := make([]byte, min(limit, int64(len(bundleMagic))))
	if err := readFull(r, head, off); err != nil {
		return nil, err
	}
	switch {
	case string(head) == bundleMagic:
		b := &Bundle{Offset: off}
		var err error
		b.Entries, b.Size, err = readEntries(io.NewSectionReader(r, off, limit), limit)
		return b, err
	case bytes.HasPrefix(head, []byte(compressedMagic)):
		return readCompressed(r, off, limit)
	}
	return nil, fmt.Errorf("neither %q nor %q there", bundleMagic, compressedMagic)
}

// readEntries reads the table of a plain bundle. All numbers are little endian
// and 64 bits wide: the count, then offset, size and length of id for each
// entry, followed by the id.
func readEntries(r io.ReaderAt, limit int64) (entries []Entry, size int64, err error) {
	pos := int64(len(bundleMagic))
	field := func() (int64, error) {
		var b [8]byte
		if pos+8 > limit {
			return 0, io.ErrUnexpectedEOF
		}
		if err := readFull(r, b[:], pos); err != nil {
			return 0, err
		}
		pos += 8
		v := binary.LittleEndian.Uint64(b[:])
		if v > 1<<48 {
			return 0, fmt.Errorf("number %#x is out of range", v)
		}
		return int64(v), nil
	}
	count, err := field()
	if err != nil {
		return nil, 0, fmt.Errorf("number of entries: %w", err)
	}
	if count > maxEntries {
		return nil, 0, fmt.Errorf("%d entries, more than %d", count, maxEntries)
	}
	for i := range count {
		var e Entry
		var idLen int64
		for _, p := range []*int64{&e.Offset, &e.Size, &idLen} {
			if p == &e.Size {
				e.sizeField = pos
			}
			if *p, err = field(); err != nil {
				return nil, 0, fmt.Errorf("entry %d: %w", i, err)
			}
		}
		if idLen > maxIDLen || pos+idLen > limit {
			return nil, 0, fmt.Errorf("entry %d: id of %d bytes does not fit", i, idLen)
		}
		id := make([]byte, idLen)
		if err := readFull(r, id, pos); err != nil {
			return nil, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		pos += idLen
		if e.ID, err = gfx.ParseBundleID(string(id)); err != nil {
			return nil, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		entries = append(entries, e)
	}
	size = pos
	for i, e := range entries {
		if e.Offset+e.Size > limit {
			return nil, 0, fmt.Errorf("entry %d (%s): bytes %#x to %#x are outside of the %#x there are", i, e.ID, e.Offset, e.Offset+e.Size, limit)
		}
		if e.Size > 0 && e.Offset < pos {
			return nil, 0, fmt.Errorf("entry %d (%s): starts inside the table", i, e.ID)
		}
		size = max(size, e.Offset+e.Size)
	}
	return entries, size, nil
}

// Content returns the bundle that the offsets of its entries are counted in: from its
// magic on, and unpacked where it is compressed. It is unpacked anew each time: a
// file has hundreds of bundles, and all of them at once would take gigabytes.
func (fb *FatBinary) Content(b *Bundle) (io.ReaderAt, error) {
	if b.Compressed == nil {
		return io.NewSectionReader(fb.r, b.Offset, b.Size), nil
	}
	data, err := unpack(fb.r, b)
	if err != nil {
		return nil, err
	}
	return bytes.NewReader(data), nil
}

// withFatBinary opens the file at path for fn.
func withFatBinary(path string, fn func(*FatBinary, *os.File) error) error {
	return elfdep.WithFile(path, func(f *elf.File, file *os.File) error {
		fb, err := fatBinaryOf(f, file)
		if err != nil {
			return err
		}
		return fn(fb, file)
	})
}
