package gguf

import "math"

// Tensor is one row of the tensor table.
type Tensor struct {
	Name   string
	Type   TensorType
	Dims   [4]uint64 // innermost first, unused ones are 1
	Rank   int       // how many of Dims the file states
	Offset int64     // of the data in its file, in bytes
	Bytes  uint64    // of the data, without padding
	Part   int       // which file of a split model, from 0
}

// Elements is the product of the dimensions.
func (t Tensor) Elements() uint64 { return t.Dims[0] * t.Dims[1] * t.Dims[2] * t.Dims[3] }

func (rd *reader) tensorTable(n uint64) error {
	c := rd.c
	c.part = "tensors"
	rd.f.tensors = make([]Tensor, 0, min(n, presizedMax))
	rd.nameLen = make([]int, 0, min(n, presizedMax))
	for i := range n {
		l, err := c.u64()
		if err != nil {
			return err
		}
		if l == 0 || l > maxName {
			return c.fail(ErrMalformed, "tensor %d has a name of %d bytes, where 1 to %d are allowed", i, l, maxName)
		}
		off, length, err := rd.appendString(l)
		if err != nil {
			return err
		}
		var t Tensor
		if err := rd.tensor(&t, rd.arena[off:off+length]); err != nil {
			return err
		}
		rd.f.tensors = append(rd.f.tensors, t)
		rd.nameLen = append(rd.nameLen, length)
	}
	return nil
}

// tensor reads the rest of a row: shape, type and offset.
func (rd *reader) tensor(t *Tensor, name []byte) error {
	c := rd.c
	rank, err := c.u32()
	if err != nil {
		return err
	}
	if rank > maxDims {
		return c.fail(ErrMalformed, "tensor %q has %d dimensions, at most %d are allowed", name, rank, maxDims)
	}
	t.Rank = int(rank)
	t.Dims = [4]uint64{1, 1, 1, 1}
	elements := uint64(1)
	for j := range t.Rank {
		if t.Dims[j], err = c.u64(); err != nil {
			return err
		}
		p, ok := mul(elements, t.Dims[j])
		if !ok || p > math.MaxInt64 || t.Dims[j] > math.MaxInt64 {
			return c.fail(ErrMalformed, "tensor %q has too many elements", name)
		}
		elements = p
	}
	typ, err := c.u32()
	if err != nil {
		return err
	}
	t.Type = TensorType(typ)
	row, err := t.Type.RowBytes(t.Dims[0])
	if err != nil {
		return c.fail(ErrMalformed, "tensor %q: %v", name, err)
	}
	var rows uint64
	if t.Dims[0] != 0 {
		rows = elements / t.Dims[0]
	}
	size, ok := mul(row, rows)
	if !ok || size > math.MaxInt64 {
		return c.fail(ErrMalformed, "tensor %q has too many bytes", name)
	}
	t.Bytes = size
	rel, err := c.u64()
	if err != nil {
		return err
	}
	if rel != rd.dataLen {
		return c.fail(ErrMalformed, "tensor %q begins at %d of the data, expected %d", name, rel, rd.dataLen)
	}
	t.Offset = int64(rel)
	padded, ok := pad(size, rd.f.align)
	if !ok || rd.dataLen > math.MaxInt64-padded {
		return c.fail(ErrMalformed, "tensor %q ends beyond 2^63 bytes", name)
	}
	rd.dataLen += padded
	return nil
}

// finish sets the names of the tensors and compares the data section with the size
// of the file.
func (rd *reader) finish() error {
	c, f := rd.c, rd.f
	c.part = "data"
	names := string(rd.arena)
	at := 0
	f.byName = make(map[string]int32, len(f.tensors))
	for i := range f.tensors {
		t := &f.tensors[i]
		t.Name = names[at : at+rd.nameLen[i]]
		at += rd.nameLen[i]
		if _, twice := f.byName[t.Name]; twice {
			return c.fail(ErrMalformed, "tensor %q appears twice", t.Name)
		}
		f.byName[t.Name] = int32(i)
	}
	start, ok := pad(uint64(c.offset()), f.align)
	if !ok || start > math.MaxInt64 {
		return c.fail(ErrMalformed, "the data section begins beyond 2^63 bytes")
	}
	f.dataOff = int64(start)
	if len(f.tensors) == 0 {
		return nil
	}
	for i := range f.tensors {
		t := &f.tensors[i]
		t.Offset += f.dataOff
		end := uint64(t.Offset) + t.Bytes
		if t.Offset < 0 || end > uint64(f.size) {
			return c.fail(ErrTruncated, "tensor %q ends at byte %d, the file at %d", t.Name, end, f.size)
		}
	}
	return nil
}

// pad rounds n up to a multiple of align, a power of two.
func pad(n, align uint64) (uint64, bool) {
	p := (n + align - 1) &^ (align - 1)
	return p, p >= n
}
