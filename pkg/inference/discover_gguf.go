package inference

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of the header scan. general.* keys mostly stand first, but
// llama-quantize appends general.file_type behind the tokenizer's arrays (a few
// MiB) when the file it read had none.
const (
	ggufScanBytes = 32 << 20
	ggufMaxKeys   = 4096
	ggufMaxString = 64 << 10
)

// errNotModel marks a GGUF that holds something else: a projector, an adapter, an imatrix.
var errNotModel = errors.New("gguf file is not a text model")

// Value types of GGUF metadata (gguf_type in ggml/include/gguf.h).
const (
	ggufUint32 = 4
	ggufString = 8
	ggufArray  = 9
)

// ggufScalarSize is the size in bytes of a value type, 0 for string, array and unknown ones.
func ggufScalarSize(t uint32) int64 {
	switch t {
	case 0, 1, 7: // uint8, int8, bool
		return 1
	case 2, 3: // uint16, int16
		return 2
	case ggufUint32, 5, 6: // uint32, int32, float32
		return 4
	case 10, 11, 12: // uint64, int64, float64
		return 8
	}
	return 0
}

// ftypeQuant returns bits per weight and weights per scale for general.file_type (llama_ftype
// in include/llama.h; block sizes are QK_* of ggml-common.h, K and IQ types share a scale over
// super-blocks of 256).
func ftypeQuant(ftype uint32) (bits, group int) {
	switch ftype {
	case 0:
		return 32, 0
	case 1, 32:
		return 16, 0
	case 2, 3, 25, 38: // Q4_0, Q4_1, IQ4_NL, MXFP4
		return 4, 32
	case 7: // Q8_0
		return 8, 32
	case 8, 9: // Q5_0, Q5_1
		return 5, 32
	case 10, 19, 20, 21, 28, 29, 37: // Q2_K, IQ2_*, TQ2_0
		return 2, 256
	case 11, 12, 13, 22, 23, 26, 27: // Q3_K, IQ3_*
		return 3, 256
	case 14, 15, 30: // Q4_K, IQ4_XS
		return 4, 256
	case 16, 17: // Q5_K
		return 5, 256
	case 18: // Q6_K
		return 6, 256
	case 24, 31, 36: // IQ1_*, TQ1_0
		return 1, 256
	case 39: // NVFP4
		return 4, 16
	case 40: // Q1_0
		return 1, 128
	case 41: // Q2_0
		return 2, 64
	}
	return 0, 0
}

// readGGUFFile reads what Discover needs of a GGUF file.
func readGGUFFile(path string) (m DiscoveredModel, err error) {
	f, err := openRegular(path)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m, err = parseGGUFHead(f)
	m.Path = path
	return m, err
}

// ggufHead scans metadata without keeping it.
type ggufHead struct {
	r   *bufio.Reader
	err error
}

func (h *ggufHead) uint(size int) uint64 {
	var b [8]byte
	if h.err == nil {
		_, h.err = io.ReadFull(h.r, b[:size])
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (h *ggufHead) skip(n int64) {
	if h.err == nil {
		_, h.err = h.r.Discard(int(n))
	}
}

func (h *ggufHead) string() string {
	n := h.uint(8)
	if h.err == nil && n > ggufMaxString {
		h.err = fmt.Errorf("gguf string of %d bytes where a name was expected", n)
	}
	if h.err != nil {
		return ""
	}
	b := make([]byte, n)
	_, h.err = io.ReadFull(h.r, b)
	return string(b)
}

func (h *ggufHead) skipValue(t uint32) {
	switch size := ggufScalarSize(t); {
	case size > 0:
		h.skip(size)
	case t == ggufString:
		h.skipCounted(1)
	case t == ggufArray:
		elem := uint32(h.uint(4)) //nolint:gosec // four bytes were read
		if size := ggufScalarSize(elem); size > 0 {
			h.skipCounted(size)
			return
		}
		if elem != ggufString {
			h.fail("gguf array of type %d", elem)
			return
		}
		for n := h.uint(8); n > 0 && h.err == nil; n-- {
			h.skipCounted(1)
		}
	default:
		h.fail("gguf value of type %d", t)
	}
}

// skipCounted passes over a length and so many elements of the given size.
func (h *ggufHead) skipCounted(size int64) {
	n := h.uint(8)
	if n > ggufScanBytes {
		h.fail("gguf value of %d elements before the model's own keys", n)
		return
	}
	h.skip(int64(n) * size)
}

func (h *ggufHead) fail(format string, args ...any) {
	if h.err == nil {
		h.err = fmt.Errorf(format, args...)
	}
}

// parseGGUFHead reads the leading metadata of a GGUF stream, at most
// ggufScanBytes of it. An end of the window after the architecture was seen is no failure.
func parseGGUFHead(r io.Reader) (DiscoveredModel, error) {
	h := &ggufHead{r: bufio.NewReader(io.LimitReader(r, ggufScanBytes))}
	magic, version := h.uint(4), h.uint(4)
	_, keys := h.uint(8), h.uint(8)
	if h.err != nil {
		return DiscoveredModel{}, fmt.Errorf("gguf header: %w", h.err)
	}
	if magic != 0x46554747 { // "GGUF"
		return DiscoveredModel{}, errors.New("gguf header: wrong magic")
	}
	if version < 2 || version > 3 {
		return DiscoveredModel{}, fmt.Errorf("gguf header: version %d is not 2 or 3", version)
	}
	var m DiscoveredModel
	sawType := false
	for range min(keys, ggufMaxKeys) {
		key, t := h.string(), uint32(h.uint(4)) //nolint:gosec // four bytes were read
		if h.err != nil || sawType && m.ModelType != "" && strings.HasPrefix(key, "tokenizer.") {
			break
		}
		switch {
		case key == "general.architecture" && t == ggufString:
			m.ModelType = h.string()
		case key == "general.type" && t == ggufString:
			if kind := h.string(); h.err == nil && kind != "model" {
				return DiscoveredModel{}, fmt.Errorf("%w: general.type is %q", errNotModel, kind)
			}
		case key == "general.file_type" && t == ggufUint32:
			sawType = true
			m.QuantBits, m.QuantGroup = ftypeQuant(uint32(h.uint(4)) &^ 1024) //nolint:gosec // four bytes; 1024 marks a guess
		default:
			h.skipValue(t)
		}
		if h.err != nil {
			break
		}
	}
	switch {
	case m.ModelType == "" && h.err != nil:
		return DiscoveredModel{}, fmt.Errorf("gguf metadata: %w", h.err)
	case m.ModelType == "":
		return DiscoveredModel{}, fmt.Errorf("%w: no general.architecture", errNotModel)
	case m.ModelType == "clip": // projectors older than general.type
		return DiscoveredModel{}, fmt.Errorf("%w: it is a projector", errNotModel)
	}
	return m, nil
}
