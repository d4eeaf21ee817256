// Package survey reads the code objects that a bundle ships: which instructions occur in them, and whether a
// disassembler prints them as package rdna3 does.
package survey

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// A CodeObject is the code of a file for one target.
type CodeObject struct {
	File   string // its base name
	Target gfx.Target
	Offset int64 // of the code in the file; -1 where the file has it compressed
	Code   []byte
}

// Walk calls visit for each code object of RDNA 3 in the files and directories of paths.
func Walk(paths []string, visit func(CodeObject) error) error {
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if err := file(path, visit); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// file visits the code objects of one file. A file that is no ELF file has none.
func file(path string, visit func(CodeObject) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, len(elf.ELFMAG))
	if _, err := f.ReadAt(head, 0); err != nil || string(head) != elf.ELFMAG {
		return nil
	}
	name := filepath.Base(path)
	if id, _, err := offload.CountKernels(f); err == nil {
		code, err := os.ReadFile(path)
		if err != nil || !shipped(id.Target) {
			return err
		}
		return visit(CodeObject{name, id.Target, 0, code})
	}
	fb, err := offload.ReadFatBinary(f)
	if errors.Is(err, offload.ErrNoFatBinary) {
		return nil
	}
	if err != nil {
		return err
	}
	return bundles(name, fb, visit)
}

func bundles(name string, fb *offload.FatBinary, visit func(CodeObject) error) error {
	for i := range fb.Bundles {
		content, err := fb.Content(&fb.Bundles[i])
		if err != nil {
			return err
		}
		for _, e := range fb.Bundles[i].Entries {
			if e.ID.Host() || e.Size == 0 || !shipped(e.ID.ID.Target) {
				continue
			}
			code := make([]byte, e.Size)
			if _, err := content.ReadAt(code, e.Offset); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			offset := int64(-1)
			if fb.Bundles[i].Compressed == nil {
				offset = fb.Bundles[i].Offset + e.Offset
			}
			if err := visit(CodeObject{name, e.ID.ID.Target, offset, code}); err != nil {
				return err
			}
		}
	}
	return nil
}

// shipped reports whether a target is one that package rdna3 knows.
func shipped(t gfx.Target) bool { return strings.HasPrefix(string(t), "gfx110") }

// Text returns the instructions of a code object, with their addresses.
func (c CodeObject) Text(visit func(addr uint64, words []uint32, i *rdna3.Inst, err error)) error {
	f, err := elf.NewFile(bytes.NewReader(c.Code))
	if err != nil {
		return err
	}
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || s.Type == elf.SHT_NOBITS {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		words := make([]uint32, len(data)/4)
		for n := range words {
			words[n] = f.ByteOrder.Uint32(data[4*n:])
		}
		for n := 0; n < len(words); {
			i, err := rdna3.Decode(words[n:])
			size := 1
			if err == nil {
				size = i.Size / 4
			}
			visit(s.Addr+4*uint64(n), words[n:n+size], i, err)
			n += size
		}
	}
	return nil
}

// A Count says how often an instruction occurs, and whether the interpreter runs it in every form that occurs.
type Count struct {
	Name        string // as a disassembler prints it
	N           int
	Implemented bool
	Files       map[string]int
}

// Opcodes counts the instructions of the files by name, of all targets or only of some. What is no instruction counts as
// "unknown".
func Opcodes(paths []string, targets ...gfx.Target) ([]*Count, error) {
	counts := map[string]*Count{}
	add := func(file, name string, implemented bool) {
		c := counts[name]
		if c == nil {
			c = &Count{Name: name, Implemented: true, Files: map[string]int{}}
			counts[name] = c
		}
		c.N++
		c.Files[file]++
		c.Implemented = c.Implemented && implemented
	}
	err := Walk(paths, func(c CodeObject) error {
		if len(targets) > 0 && !slices.Contains(targets, c.Target) {
			return nil
		}
		return c.Text(func(_ uint64, words []uint32, i *rdna3.Inst, err error) {
			switch {
			case err != nil && words[0] == 0:
				return // padding
			case err != nil:
				add(c.File, "unknown", false)
			case i.Op.Name == "s_code_end":
			default:
				add(c.File, i.Mnemonic(), rdna3.Implemented(i))
				if i.Y != nil {
					add(c.File, i.Y.Mnemonic(), rdna3.Implemented(i))
				}
			}
		})
	})
	var out []*Count
	for _, c := range counts {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Count) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}
