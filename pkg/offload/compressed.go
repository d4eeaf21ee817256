package offload

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Compression describes a bundle that clang wrote with --offload-compress.
type Compression struct {
	Version  int    // of the header: 2 or 3
	Method   string // "zlib" or "zstd"
	Unpacked int64  // bytes
	Hash     uint64 // truncated MD5 of the unpacked bundle, as written
}

// maxUnpacked bounds the size that one compressed bundle may claim. The largest
// plain bundle of Debian's rocBLAS is below 200 MiB.
const maxUnpacked = 2 << 30

// maxWindow bounds the zstd window of one, in bytes, which is allocated before
// any data is seen: 2^27, the largest of zstd's levels (ZSTD_WINDOWLOG_LIMIT_DEFAULT)
// and what clang's long distance matching uses.
const maxWindow = 128 << 20

// methodName names the values of llvm::compression::Format.
func methodName(method uint16) (string, error) {
	switch method {
	case 0:
		return "zlib", nil
	case 1:
		return "zstd", nil
	}
	return "", fmt.Errorf("unknown compression method %d", method)
}

// readCompressed reads a bundle with the header in "Compressed Offload Bundle" of LLVM's
// documentation of clang-offload-bundler: magic, version and method of 16 bits each, the
// whole size and the unpacked size (32 bits each, from version 3 on 64), and a hash.
func readCompressed(r io.ReaderAt, off, limit int64) (*Bundle, error) {
	var h [32]byte
	n, err := r.ReadAt(h[:min(limit, int64(len(h)))], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head := bytes.NewReader(h[min(n, len(compressedMagic)):n])
	var version, method uint16
	if err := errors.Join(read(head, &version), read(head, &method)); err != nil {
		return nil, fmt.Errorf("compressed header: %w", noEOF(err))
	}
	c := &Compression{Version: int(version)}
	var total, unpacked uint64
	switch version {
	case 1:
		return nil, errors.New("compressed header of version 1 (LLVM before 19) does not have the size of its bundle; build with a newer compiler or with --no-offload-compress")
	case 2:
		var t, u uint32
		err = errors.Join(read(head, &t), read(head, &u))
		total, unpacked = uint64(t), uint64(u)
	case 3:
		err = errors.Join(read(head, &total), read(head, &unpacked))
	default:
		return nil, fmt.Errorf("compressed header has version %d, known are 2 and 3", version)
	}
	if err = errors.Join(err, read(head, &c.Hash)); err != nil {
		return nil, fmt.Errorf("compressed header: %w", noEOF(err))
	}
	headLen := int64(n) - int64(head.Len())
	if total > uint64(limit) || int64(total) < headLen { //nolint:gosec // compared with limit first
		return nil, fmt.Errorf("compressed bundle of %d bytes, %d are there", total, limit)
	}
	if unpacked > maxUnpacked {
		return nil, fmt.Errorf("compressed bundle claims %d bytes unpacked, more than %d", unpacked, int64(maxUnpacked))
	}
	c.Unpacked = int64(unpacked)
	if c.Method, err = methodName(method); err != nil {
		return nil, fmt.Errorf("compressed bundle: %w", err)
	}
	b := &Bundle{Offset: off, Size: int64(total), Compressed: c, head: headLen}
	data, err := unpack(r, b)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte(bundleMagic)) {
		return nil, errors.New("compressed bundle: no offload bundle in it")
	}
	b.Entries, _, err = readEntries(bytes.NewReader(data), c.Unpacked)
	return b, err
}

func read[T uint16 | uint32 | uint64](r io.Reader, v *T) error {
	return binary.Read(r, binary.LittleEndian, v)
}

// unpack returns the content of a compressed bundle of r. More or fewer
// bytes than in its header are an error. The buffer grows as they come, so that a
// lying header costs at most a window.
func unpack(r io.ReaderAt, b *Bundle) ([]byte, error) {
	c := b.Compressed
	dec, err := c.decoder(io.NewSectionReader(r, b.Offset+b.head, b.Size-b.head))
	if err != nil {
		return nil, fmt.Errorf("compressed bundle: %w", err)
	}
	defer dec.Close()
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(dec, c.Unpacked+1))
	if err != nil {
		return nil, fmt.Errorf("compressed bundle: %w", err)
	}
	if n != c.Unpacked {
		return nil, fmt.Errorf("compressed bundle: unpacks to other than the %d bytes in its header", c.Unpacked)
	}
	return buf.Bytes(), nil
}

func (c *Compression) decoder(src io.Reader) (io.ReadCloser, error) {
	if c.Method == "zlib" {
		return zlib.NewReader(src)
	}
	// A window may be the power of two above what it is for; 1 KiB is zstd's least.
	window := min(max(2*c.Unpacked, 1<<10), maxWindow)
	z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}
