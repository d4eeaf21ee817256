package gguf

import (
	"fmt"
	"io"
	"math/bits"
)

const (
	maxDims     = 4         // GGML_MAX_DIMS
	maxName     = 63        // GGML_MAX_NAME less the final zero
	maxKey      = 1<<16 - 1 // bytes, as the format's description has it
	maxStrings  = 1 << 24   // strings in an array; the largest vocabularies have half a million merges
	defaultPad  = 32        // GGUF_DEFAULT_ALIGNMENT
	minPair     = 8 + 1 + 4 + 1
	minTensor   = 8 + 1 + 4 + 4 + 8
	keyAlign    = "general.alignment"
	presizedMax = 4096 // entries allocated ahead on the file's word alone
)

// Bounds against hostile files, each several times what published models have:
// some fifty entries, forty thousand tensors where each expert has its own, and
// 40 MiB before the tensor data, most of which is the vocabulary.
const (
	maxPairs   = 1 << 16   // metadata entries
	maxTensors = 1 << 17   // in all parts of a split model
	maxHeader  = 256 << 20 // bytes before the tensor data
	maxArena   = 32 << 20  // bytes of keys, names and short strings, which are held in memory
	maxShort   = 64 << 10  // bytes of a short string; a longer one stays in the file
	maxElement = 16 << 20  // bytes of one long string, or of one string of an array, that is asked for
)

// pair is a metadata entry. Its key, and its value if that is a string, are ranges
// of the arena until resolvePairs.
type pair struct {
	key   string
	value Value
	kOff  int
	kLen  int
	sOff  int
	sLen  int
}

// reader reads one file. All strings are stored in one arena, so that the number of
// allocations does not grow with the number of keys and tensors.
type reader struct {
	c       *cursor
	f       *File
	arena   []byte
	nameLen []int
	dataLen uint64
}

// NewReader reads the header of one GGUF file of size bytes. Arrays are read from r
// on demand, so r must stay usable. NewReader does not read the other parts of a
// split model: see Open.
func NewReader(r io.ReaderAt, size int64) (*File, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: negative size %d", ErrMalformed, size)
	}
	rd := &reader{c: newCursor(r, 0, min(size, maxHeader)), f: &File{r: r, size: size, parts: 1, align: defaultPad}}
	rd.c.file = size
	kvs, tensors, err := rd.header()
	if err != nil {
		return nil, err
	}
	if err := rd.metadata(kvs); err != nil {
		return nil, err
	}
	if err := rd.tensorTable(tensors); err != nil {
		return nil, err
	}
	if err := rd.finish(); err != nil {
		return nil, err
	}
	return rd.f, nil
}

func (rd *reader) header() (kvs, tensors uint64, err error) {
	c := rd.c
	if c.size < 4 {
		return 0, 0, rd.notGGUF("%d bytes are too few for the magic", c.size)
	}
	magic, err := c.u32()
	if err != nil {
		return 0, 0, err
	}
	const le, be = 0x46554747, 0x47475546 // "GGUF" read little-endian, and reversed
	if magic == be {
		return 0, 0, c.fail(ErrBigEndian, "the magic is reversed; convert the model for little-endian machines")
	}
	if magic != le {
		return 0, 0, rd.notGGUF("begins with %#08x", bits.ReverseBytes32(magic))
	}
	v, err := c.u32()
	if err != nil {
		return 0, 0, err
	}
	switch {
	case v&0xffff == 0 && v != 0:
		return 0, 0, c.fail(ErrBigEndian, "version reads as %#08x; convert the model for little-endian machines", v)
	case v == 1:
		return 0, 0, c.fail(ErrVersion, "version 1 is obsolete; convert the model again with a current llama.cpp")
	case v != 2 && v != 3:
		return 0, 0, c.fail(ErrVersion, "version %d, only 2 and 3 are supported", v)
	}
	rd.f.version = v
	if tensors, err = c.u64(); err != nil {
		return 0, 0, err
	}
	if kvs, err = c.u64(); err != nil {
		return 0, 0, err
	}
	left := uint64(c.file - c.offset())
	switch n := left / minPair; {
	case kvs > n:
		return 0, 0, c.fail(ErrTruncated, "%d metadata entries, but the file has room for %d", kvs, n)
	case kvs > maxPairs:
		return 0, 0, c.fail(ErrMalformed, "%d metadata entries, more than %d", kvs, maxPairs)
	}
	switch n := left / minTensor; {
	case tensors > n:
		return 0, 0, c.fail(ErrTruncated, "%d tensors, but the file has room for %d", tensors, n)
	case tensors > maxTensors:
		return 0, 0, c.fail(ErrMalformed, "%d tensors, more than %d", tensors, maxTensors)
	}
	return kvs, tensors, nil
}

// notGGUF returns an ErrNotGGUF that says what the file is instead.
func (rd *reader) notGGUF(format string, args ...any) error {
	if err := rd.c.rewind(); err != nil {
		return err
	}
	return &FormatError{Part: "header", Reason: fmt.Sprintf(format, args...), Err: ErrNotGGUF, Content: sniff(rd.c.buf, rd.c.size)}
}

// appendString reads a string of n bytes into the arena.
func (rd *reader) appendString(n uint64) (off, length int, err error) {
	if n > rd.c.left() {
		return 0, 0, rd.c.tooShort(n, "a string of %d bytes", n)
	}
	if n > maxArena || uint64(len(rd.arena)) > maxArena-n {
		return 0, 0, rd.c.fail(ErrMalformed, "more than %d bytes of keys, names and short strings", maxArena)
	}
	off = len(rd.arena)
	rd.arena, err = rd.c.appendBytes(rd.arena, n)
	return off, len(rd.arena) - off, err
}

func (rd *reader) metadata(n uint64) error {
	c := rd.c
	c.part = "metadata"
	rd.arena = make([]byte, 0, 16<<10)
	rd.f.pairs = make([]pair, 0, min(n, presizedMax))
	for i := range n {
		l, err := c.u64()
		if err != nil {
			return err
		}
		if l == 0 {
			return c.fail(ErrMalformed, "entry %d has an empty key", i)
		}
		if l > maxKey && l <= c.left() {
			return c.fail(ErrMalformed, "entry %d has a key of %d bytes, more than %d", i, l, maxKey)
		}
		var p pair
		if p.kOff, p.kLen, err = rd.appendString(l); err != nil {
			return err
		}
		t, err := c.u32()
		if err != nil {
			return err
		}
		p.value.typ = ValueType(t)
		if err := rd.value(&p); err != nil {
			return err
		}
		rd.f.pairs = append(rd.f.pairs, p)
	}
	return rd.resolvePairs()
}

func (rd *reader) value(p *pair) (err error) {
	c := rd.c
	switch t := p.value.typ; t {
	case String:
		l, err := c.u64()
		if err != nil {
			return err
		}
		if l > maxShort {
			p.value.arr = Array{r: c.r, off: c.offset(), end: c.offset() + int64(min(l, c.left())), elem: String, n: 1}
			return c.skip(l)
		}
		p.sOff, p.sLen, err = rd.appendString(l)
		return err
	case ArrayOf:
		p.value.arr, err = rd.array()
		return err
	default:
		w := t.width()
		if w == 0 {
			return c.fail(ErrMalformed, "key %.80q has the unknown type %d", rd.arena[p.kOff:p.kOff+p.kLen], uint32(t))
		}
		p.value.num, err = c.fixed(w)
		if t == Bool && p.value.num != 0 {
			p.value.num = 1
		}
		return err
	}
}

// array checks the extent of an array and skips it.
func (rd *reader) array() (Array, error) {
	c := rd.c
	t, err := c.u32()
	if err != nil {
		return Array{}, err
	}
	n, err := c.u64()
	if err != nil {
		return Array{}, err
	}
	a := Array{r: c.r, off: c.offset(), elem: ValueType(t), n: n}
	switch w := a.elem.width(); {
	case a.elem == String && n > maxStrings && n <= uint64(c.file-c.offset())/8:
		return Array{}, c.fail(ErrMalformed, "an array of %d strings, more than %d", n, maxStrings)
	case a.elem == String:
		err = c.skipStrings(n)
	case w == 0:
		return Array{}, c.fail(ErrMalformed, "an array of %s, which the format does not have", a.elem)
	case n > c.left()/uint64(w):
		return Array{}, c.tooShort(times(n, uint64(w)), "an array of %d %s", n, a.elem)
	default:
		err = c.skip(n * uint64(w))
	}
	a.end = c.offset()
	return a, err
}

// resolvePairs converts arena ranges to strings, indexes the keys and reads the
// alignment.
func (rd *reader) resolvePairs() error {
	text := string(rd.arena)
	rd.arena = rd.arena[:0]
	rd.f.index = make(map[string]int32, len(rd.f.pairs))
	for i := range rd.f.pairs {
		p := &rd.f.pairs[i]
		p.key = text[p.kOff : p.kOff+p.kLen]
		if p.value.typ == String && !p.value.isLong() {
			p.value.str = text[p.sOff : p.sOff+p.sLen]
		}
		if _, twice := rd.f.index[p.key]; twice {
			return rd.c.fail(ErrMalformed, "key %.80q appears twice", p.key)
		}
		rd.f.index[p.key] = int32(i)
	}
	if v, ok := rd.f.Lookup(keyAlign); ok {
		if v.typ != Uint32 || bits.OnesCount64(v.num) != 1 {
			return rd.c.fail(ErrMalformed, "alignment %s (%s) is not a power of two of at most 32 bits", v.truncated(), v.typ)
		}
		rd.f.align = v.num
	}
	return nil
}
