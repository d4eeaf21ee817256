package elfdep

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/internal/sparse"
)

const dynEntrySize = 16 // of ELF64: tag and value

// RemoveRunpath removes DT_RUNPATH and DT_RPATH from the ELF file at path and
// reports whether there were any. The entries after them move up and the
// section ends earlier, which the loader reads like before: only the order of
// DT_NEEDED entries among themselves has a meaning, and that stays. The string
// itself stays too, since other names may share its bytes.
//
// The new file replaces the old one at once, sparse, with the old mode.
func RemoveRunpath(path string) (bool, error) {
	removed := false
	err := WithFile(path, func(f *elf.File, file *os.File) error {
		at, old, err := dynamicSegment(f)
		if err != nil || old == nil {
			return err
		}
		patch := withoutRunpath(old)
		if slices.Equal(patch, old) {
			return nil
		}
		removed = true
		return sparse.Rewrite(path, file, sparse.Edit{Patch: patch, Offset: at})
	})
	return removed && err == nil, err
}

func dynamicSegment(f *elf.File) (at int64, data []byte, err error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		const most = 1 << 20
		if p.Filesz > most || p.Filesz%dynEntrySize != 0 {
			return 0, nil, &FormatError{What: "dynamic segment", Err: fmt.Errorf("%d bytes, want whole entries and at most %d", p.Filesz, most)}
		}
		data = make([]byte, p.Filesz)
		if n, err := p.ReadAt(data, 0); n < len(data) {
			return 0, nil, &FormatError{What: "dynamic segment", Err: err}
		}
		if p.Off > 1<<62 {
			return 0, nil, &FormatError{What: "dynamic segment", Err: errors.New("offset out of range")}
		}
		return int64(p.Off), data, nil
	}
	return 0, nil, nil
}

// withoutRunpath returns a copy of a dynamic section of the same length.
func withoutRunpath(old []byte) []byte {
	out := make([]byte, 0, len(old))
	for e := range slices.Chunk(old, dynEntrySize) {
		switch elf.DynTag(binary.LittleEndian.Uint64(e)) { //nolint:gosec // an unknown tag is kept whatever its sign
		case elf.DT_RPATH, elf.DT_RUNPATH:
		default:
			out = append(out, e...)
		}
	}
	return append(out, make([]byte, len(old)-len(out))...) // DT_NULL is 0
}
