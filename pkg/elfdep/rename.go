package elfdep

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/internal/sparse"
)

// RenameLibrary replaces the SONAME from by to in the ELF file at path, where it is the file's own
// (DT_SONAME) and where the file needs it (DT_NEEDED and the symbol versions of that library, which
// share the string). It reports whether there was any. to must not be longer than from: the string is
// replaced in place.
//
// The new file replaces the old one at once, sparse, with the old mode.
func RenameLibrary(path, from, to string) (bool, error) {
	if len(to) > len(from) || to == "" {
		return false, fmt.Errorf("rename %s in %s: %q is longer, or empty", from, path, to)
	}
	for {
		renamed := false
		err := WithFile(path, func(f *elf.File, file *os.File) error {
			at, err := findLibraryName(f, from)
			if err != nil || at < 0 {
				return err
			}
			patch := make([]byte, len(from))
			copy(patch, to)
			renamed = true
			return sparse.Rewrite(path, file, sparse.Edit{Patch: patch, Offset: at})
		})
		if err != nil || !renamed {
			return false, err
		}
		// DT_SONAME and DT_NEEDED of one name share a string in practice; a second one is found here.
		if at, err := libraryNameOffset(path, from); err != nil || at < 0 {
			return err == nil, err
		}
	}
}

// libraryNameOffset is findLibraryName for the file at path.
func libraryNameOffset(path, name string) (at int64, err error) {
	err = WithFile(path, func(f *elf.File, _ *os.File) error {
		at, err = findLibraryName(f, name)
		return err
	})
	return at, err
}

// findLibraryName returns the offset in the file of a name that DT_SONAME or DT_NEEDED refers to; -1 if
// there is none.
func findLibraryName(f *elf.File, name string) (int64, error) {
	dynamic := f.SectionByType(elf.SHT_DYNAMIC)
	if dynamic == nil {
		return -1, nil
	}
	entries, err := dynamic.Data()
	if err != nil {
		return -1, &FormatError{What: "dynamic section", Err: err}
	}
	if uint64(dynamic.Link) >= uint64(len(f.Sections)) {
		return -1, &FormatError{What: "dynamic section", Err: errors.New("it has no string table")}
	}
	table := f.Sections[dynamic.Link]
	strings, err := table.Data()
	if err != nil {
		return -1, &FormatError{What: "string table", Err: err}
	}
	for e := range slices.Chunk(entries, dynEntrySize) {
		if len(e) < dynEntrySize {
			break
		}
		tag, at := elf.DynTag(binary.LittleEndian.Uint64(e)), binary.LittleEndian.Uint64(e[8:]) //nolint:gosec // an unknown tag matches none
		if tag != elf.DT_SONAME && tag != elf.DT_NEEDED || at > uint64(len(strings)) {
			continue
		}
		if bytes.HasPrefix(strings[at:], append([]byte(name), 0)) && table.Offset < 1<<62 {
			return int64(table.Offset) + int64(at), nil //nolint:gosec // checked above
		}
	}
	return -1, nil
}
