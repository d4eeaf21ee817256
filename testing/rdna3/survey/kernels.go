package survey

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// A Kernel is a kernel of a code object.
type Kernel struct {
	Name   string
	Offset int64 // of its first instruction, in the code object
	Size   int64 // of its instructions in bytes; 0 if the code object does not have it
}

// Kernels returns the kernels of a code object. Each has a descriptor, which names its first instruction.
func (c CodeObject) Kernels() ([]Kernel, error) {
	f, err := elf.NewFile(bytes.NewReader(c.Code))
	if err != nil {
		return nil, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		if errors.Is(err, elf.ErrNoSymbols) {
			err = nil
		}
		return nil, err
	}
	sizes := map[string]int64{}
	for _, s := range symbols {
		sizes[s.Name] = int64(s.Size)
	}
	const entry = 16 // where a descriptor has the distance from itself to the first instruction
	var out []Kernel
	for _, s := range symbols {
		name, ok := strings.CutSuffix(s.Name, ".kd")
		if !ok || s.Section == elf.SHN_UNDEF {
			continue
		}
		at, ok := fileOffset(f, s.Value)
		if !ok || at+entry+8 > int64(len(c.Code)) {
			return nil, fmt.Errorf("the descriptor of %s is outside the file", name)
		}
		first := s.Value + binary.LittleEndian.Uint64(c.Code[at+entry:])
		offset, ok := fileOffset(f, first)
		if !ok {
			return nil, fmt.Errorf("the first instruction of %s is outside the file", name)
		}
		out = append(out, Kernel{name, offset, sizes[name]})
	}
	return out, nil
}

// fileOffset returns where the byte at an address of memory is in the file.
func fileOffset(f *elf.File, addr uint64) (int64, bool) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return int64(p.Off + addr - p.Vaddr), true
		}
	}
	return 0, false
}

// An Instruction is an instruction of a kernel.
type Instruction struct {
	Offset int64 // in the code object
	*rdna3.Inst
}

// Instructions returns the instructions of a kernel up to its first s_endpgm.
func (c CodeObject) Instructions(k Kernel) ([]Instruction, error) {
	var out []Instruction
	for at := k.Offset; at+4 <= int64(len(c.Code)); {
		words := make([]uint32, 0, 6)
		for b := c.Code[at:]; len(b) >= 4 && len(words) < cap(words); b = b[4:] {
			words = append(words, binary.LittleEndian.Uint32(b))
		}
		i, err := rdna3.Decode(words)
		if err != nil {
			return nil, fmt.Errorf("%s at %#x: %w", k.Name, at, err)
		}
		out = append(out, Instruction{at, i})
		if i.Mnemonic() == "s_endpgm" {
			return out, nil
		}
		at += int64(i.Size)
	}
	return nil, fmt.Errorf("%s has no end", k.Name)
}

// Patch overwrites instructions in a file: change gets each kernel for a target whose name begins with prefix, and
// returns the words to write and where in the code object. It returns how many kernels there are.
func Patch(path string, target gfx.Target, prefix string, change func(CodeObject, Kernel) (at int64, words []uint32, err error)) (n int, err error) {
	type write struct {
		at    int64
		bytes []byte
	}
	var writes []write
	err = Walk([]string{path}, func(c CodeObject) error {
		if c.Target != target || !bytes.Contains(c.Code, []byte(prefix)) {
			return nil
		}
		kernels, err := c.Kernels()
		if err != nil {
			return err
		}
		for _, k := range kernels {
			if !strings.HasPrefix(k.Name, prefix) {
				continue
			}
			if c.Offset < 0 {
				return errors.New("the code is compressed")
			}
			at, words, err := change(c, k)
			if err != nil {
				return err
			}
			var b []byte
			for _, w := range words {
				b = binary.LittleEndian.AppendUint32(b, w)
			}
			writes = append(writes, write{c.Offset + at, b})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	for _, w := range writes {
		if _, err := f.WriteAt(w.bytes, w.at); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	return len(writes), f.Close()
}
