package rdna3

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// An Arg is an argument of a kernel.
type Arg struct {
	Name   string
	Kind   string // "by_value", "global_buffer", or a hidden one such as "hidden_block_count_x"
	Offset int
	Size   int
}

type kernelMetadata struct {
	args     []Arg
	bytes    uint32
	maxGroup int
}

// metadata reads the note with the arguments of each kernel.
func metadata(f *elf.File) (map[string]*kernelMetadata, error) {
	out := map[string]*kernelMetadata{}
	s := f.Section(".note")
	if s == nil {
		return out, nil
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	const note = 32 // NT_AMDGPU_METADATA
	le := binary.LittleEndian
	for len(data) >= 12 {
		names, size, kind := int(le.Uint32(data)), int(le.Uint32(data[4:])), le.Uint32(data[8:])
		from := 12 + (names+3)&^3
		if from < 12 || size < 0 || from+size > len(data) || from+size < from {
			return nil, errors.New("a note is longer than its section")
		}
		if kind == note {
			return out, kernelsOf(data[from:from+size], out)
		}
		data = data[min(len(data), from+(size+3)&^3):]
	}
	return out, nil
}

func kernelsOf(data []byte, out map[string]*kernelMetadata) error {
	v, _, err := unpack(data, 0)
	if err != nil {
		return fmt.Errorf("metadata of the kernels: %w", err)
	}
	root, _ := v.(map[string]any)
	kernels, _ := root["amdhsa.kernels"].([]any)
	for _, k := range kernels {
		k, _ := k.(map[string]any)
		name, _ := k[".name"].(string)
		m := &kernelMetadata{bytes: uint32(number(k[".kernarg_segment_size"])), maxGroup: number(k[".max_flat_workgroup_size"])}
		args, _ := k[".args"].([]any)
		for _, a := range args {
			a, _ := a.(map[string]any)
			arg := Arg{Offset: number(a[".offset"]), Size: number(a[".size"])}
			arg.Name, _ = a[".name"].(string)
			arg.Kind, _ = a[".value_kind"].(string)
			m.args = append(m.args, arg)
		}
		out[name] = m
	}
	return nil
}

func number(v any) int {
	n, _ := v.(int)
	return n
}

var errPacked = errors.New("not the MessagePack that compilers write")

// unpack reads one value of MessagePack, of the kinds that a compiler writes into the note, and returns what is left.
func unpack(b []byte, depth int) (any, []byte, error) {
	const deepest = 16
	if len(b) == 0 || depth > deepest {
		return nil, nil, errPacked
	}
	c, rest := b[0], b[1:]
	size := func(n int) (int, bool) { // the big-endian number in the next n bytes
		if len(rest) < n {
			return 0, false
		}
		var x uint64
		for _, d := range rest[:n] {
			x = x<<8 | uint64(d)
		}
		rest = rest[n:]
		return int(x), x <= math.MaxInt
	}
	n, ok := 0, true
	switch {
	case c < 0x80:
		return int(c), rest, nil
	case c < 0x90:
		return unpackMap(rest, int(c&15), depth)
	case c < 0xa0:
		return unpackList(rest, int(c&15), depth)
	case c < 0xc0:
		n = int(c & 31)
	case c >= 0xe0:
		return int(int8(c)), rest, nil
	case c == 0xc0:
		return nil, rest, nil
	case c == 0xc2 || c == 0xc3:
		return c == 0xc3, rest, nil
	case c >= 0xcc && c <= 0xcf:
		if n, ok = size(1 << (c - 0xcc)); !ok {
			return nil, nil, errPacked
		}
		return n, rest, nil
	case c >= 0xd9 && c <= 0xdb:
		n, ok = size(1 << (c - 0xd9))
	case c == 0xdc || c == 0xdd:
		if n, ok = size(2 << (c - 0xdc)); !ok {
			return nil, nil, errPacked
		}
		return unpackList(rest, n, depth)
	case c == 0xde || c == 0xdf:
		if n, ok = size(2 << (c - 0xde)); !ok {
			return nil, nil, errPacked
		}
		return unpackMap(rest, n, depth)
	default:
		ok = false
	}
	if !ok || n > len(rest) {
		return nil, nil, errPacked
	}
	return string(rest[:n]), rest[n:], nil
}

func unpackList(b []byte, n, depth int) (out any, rest []byte, err error) {
	var list []any
	for range n {
		var v any
		if v, b, err = unpack(b, depth+1); err != nil {
			return nil, nil, err
		}
		list = append(list, v)
	}
	return list, b, nil
}

func unpackMap(b []byte, n, depth int) (out any, rest []byte, err error) {
	m := map[string]any{}
	for range n {
		var k, v any
		if k, b, err = unpack(b, depth+1); err != nil {
			return nil, nil, err
		}
		if v, b, err = unpack(b, depth+1); err != nil {
			return nil, nil, err
		}
		if s, ok := k.(string); ok {
			m[s] = v
		}
	}
	return m, b, nil
}
