package ggufgen

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32
)

// Builder collects metadata and tensors and writes them as one GGUF file of version 3. Keys are
// written in the order in which they were added. The methods that write return the first error.
type Builder struct {
	kvs     bytes.Buffer
	keys    map[string]bool
	tensors []tensor
	err     error
}

type tensor struct {
	name string
	typ  gguf.TensorType
	dims []uint64
	size uint64
	fill Fill
}

// Fill writes exactly size bytes of tensor data.
type Fill func(w io.Writer, size uint64) error

// New returns an empty builder for an architecture.
func New(arch string) *Builder {
	b := &Builder{keys: map[string]bool{}}
	b.Text("general.architecture", arch)
	return b
}

// Has reports whether the key was added.
func (b *Builder) Has(key string) bool { return b.keys[key] }

func (b *Builder) key(name string, t gguf.ValueType) {
	if b.keys[name] && b.err == nil {
		b.err = fmt.Errorf("key %q was added twice", name)
	}
	b.keys[name] = true
	b.text(name)
	b.u32(uint32(t))
}

func (b *Builder) text(s string) {
	b.u64(uint64(len(s)))
	b.kvs.WriteString(s)
}

func (b *Builder) u32(v uint32) { b.kvs.Write(binary.LittleEndian.AppendUint32(nil, v)) }
func (b *Builder) u64(v uint64) { b.kvs.Write(binary.LittleEndian.AppendUint64(nil, v)) }

func (b *Builder) array(name string, t gguf.ValueType, n int) {
	b.key(name, gguf.ArrayOf)
	b.u32(uint32(t))
	b.u64(uint64(n))
}

// Text adds a string.
func (b *Builder) Text(key, v string) {
	b.key(key, gguf.String)
	b.text(v)
}

// Uint adds an integer as uint32, the format's usual type.
func (b *Builder) Uint(key string, v uint32) {
	b.key(key, gguf.Uint32)
	b.u32(v)
}

// Float adds a float32.
func (b *Builder) Float(key string, v float32) {
	b.key(key, gguf.Float32)
	b.u32(math.Float32bits(v))
}

// Bool adds a bool.
func (b *Builder) Bool(key string, v bool) {
	b.key(key, gguf.Bool)
	b.kvs.WriteByte(oneIf(v))
}

// Uints adds an array of uint32.
func (b *Builder) Uints(key string, v []uint32) {
	b.array(key, gguf.Uint32, len(v))
	for _, u := range v {
		b.u32(u)
	}
}

// Floats adds an array of float32.
func (b *Builder) Floats(key string, v []float32) {
	b.array(key, gguf.Float32, len(v))
	for _, f := range v {
		b.u32(math.Float32bits(f))
	}
}

// Bools adds an array of bools.
func (b *Builder) Bools(key string, v []bool) {
	b.array(key, gguf.Bool, len(v))
	for _, on := range v {
		b.kvs.WriteByte(oneIf(on))
	}
}

// Texts adds an array of strings.
func (b *Builder) Texts(key string, v []string) {
	b.array(key, gguf.String, len(v))
	for _, s := range v {
		b.text(s)
	}
}

func oneIf(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// Copy adds a value of another file, unchanged.
func (b *Builder) Copy(key string, v gguf.Value) {
	if a, ok := v.Array(); ok {
		b.array(key, a.Elem(), int(a.Len()))
		if _, err := io.Copy(&b.kvs, a.Raw()); err != nil && b.err == nil {
			b.err = fmt.Errorf("copy %s: %w", key, err)
		}
		return
	}
	b.key(key, v.Type())
	if s, ok := v.Text(); ok {
		b.text(s)
		return
	}
	b.kvs.Write(v.Stored())
}

// Tensor adds a tensor; dims are innermost first. fill may be nil for a sparse file.
func (b *Builder) Tensor(name string, t gguf.TensorType, fill Fill, dims ...uint64) {
	size, err := t.RowBytes(dims[0])
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("tensor %s: %w", name, err)
	}
	for _, d := range dims[1:] {
		size *= d
	}
	b.tensors = append(b.tensors, tensor{name, t, dims, size, fill})
}

// header returns the bytes before the tensor data, and the size of the data.
func (b *Builder) header() (head []byte, data uint64, err error) {
	if b.err != nil {
		return nil, 0, b.err
	}
	le := binary.LittleEndian
	head = append(head, magic...)
	head = le.AppendUint32(head, version)
	head = le.AppendUint64(head, uint64(len(b.tensors)))
	head = le.AppendUint64(head, uint64(len(b.keys)))
	head = append(head, b.kvs.Bytes()...)
	for _, t := range b.tensors {
		head = le.AppendUint64(head, uint64(len(t.name)))
		head = append(head, t.name...)
		head = le.AppendUint32(head, uint32(len(t.dims)))
		for _, d := range t.dims {
			head = le.AppendUint64(head, d)
		}
		head = le.AppendUint32(head, uint32(t.typ))
		head = le.AppendUint64(head, data)
		data += padded(t.size)
	}
	if len(b.tensors) > 0 {
		head = append(head, make([]byte, padded(uint64(len(head)))-uint64(len(head)))...)
	}
	return head, data, nil
}

func padded(n uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

// WriteTo writes the whole file, tensor data included.
func (b *Builder) WriteTo(w io.Writer) (int64, error) {
	head, data, err := b.header()
	if err != nil {
		return 0, err
	}
	bw := bufio.NewWriterSize(w, 1<<20)
	if _, err := bw.Write(head); err != nil {
		return 0, err
	}
	for _, t := range b.tensors {
		if t.fill == nil {
			return 0, fmt.Errorf("tensor %s has no data; write the file sparse", t.name)
		}
		if err := t.fill(bw, t.size); err != nil {
			return 0, fmt.Errorf("tensor %s: %w", t.name, err)
		}
		if _, err := bw.Write(make([]byte, padded(t.size)-t.size)); err != nil {
			return 0, err
		}
	}
	return int64(uint64(len(head)) + data), bw.Flush()
}

// WriteFile writes the whole file to name, and replaces an existing one.
func (b *Builder) WriteFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = b.WriteTo(f)
	return errors.Join(err, f.Close())
}

// WriteSparse writes the header and extends the file by the size of the data without storing
// any: if the file system has holes, a file of 40 GB uses some kilobytes of disk space. It
// returns the size.
func (b *Builder) WriteSparse(f *os.File) (int64, error) {
	head, data, err := b.header()
	if err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return 0, err
	}
	size := int64(uint64(len(head)) + data)
	return size, f.Truncate(size)
}
