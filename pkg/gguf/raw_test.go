package gguf_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// raw builds files byte by byte, valid or invalid.
type raw struct{ b []byte }

func file(version uint32, tensors, kvs uint64) *raw {
	r := &raw{[]byte("GGUF")}
	return r.u32(version).u64(tensors).u64(kvs)
}

func (r *raw) u8(v uint8) *raw   { r.b = append(r.b, v); return r }
func (r *raw) u32(v uint32) *raw { r.b = binary.LittleEndian.AppendUint32(r.b, v); return r }
func (r *raw) u64(v uint64) *raw { r.b = binary.LittleEndian.AppendUint64(r.b, v); return r }
func (r *raw) bytes(s string) *raw {
	r.b = append(r.b, s...)
	return r
}
func (r *raw) text(s string) *raw { return r.u64(uint64(len(s))).bytes(s) }

// key writes a key and the type of its value.
func (r *raw) key(name string, t gguf.ValueType) *raw { return r.text(name).u32(uint32(t)) }

// tensor writes a row of the table.
func (r *raw) tensor(name string, t gguf.TensorType, offset uint64, dims ...uint64) *raw {
	r.text(name).u32(uint32(len(dims)))
	for _, d := range dims {
		r.u64(d)
	}
	return r.u32(uint32(t)).u64(offset)
}

// data pads to 32 bytes and adds n bytes.
func (r *raw) data(n int) *raw {
	r.b = append(r.b, make([]byte, (32-len(r.b)%32)%32+n)...)
	return r
}

func (r *raw) read() (*gguf.File, error) {
	return gguf.NewReader(bytes.NewReader(r.b), int64(len(r.b)))
}

func (r *raw) mustRead(t *testing.T) *gguf.File {
	t.Helper()
	f, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	return f
}
