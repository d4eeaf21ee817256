package elfdep

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// object is what the loader reads of one file.
type object struct {
	soname  string
	interp  string
	needed  []string
	rpath   []string // DT_RPATH, split
	runpath []string // DT_RUNPATH, split
	vers    []VersionNeed
	defs    []string // versions that it defines
}

// VersionNeed is one set of symbol versions that a file requires of a library.
type VersionNeed struct {
	Library  string   // as DT_NEEDED spells it
	Versions []string // such as "GLIBC_2.34", sorted by number
}

// FormatError reports a file that is not in the expected format.
type FormatError struct {
	What string // the structure that is wrong: "ELF header", "offload bundle"
	Err  error
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("bad %s: %v", e.What, e.Err)
}

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// Open parses an ELF64 little-endian file. Other files are a [*FormatError].
func Open(r io.ReaderAt) (*elf.File, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, &FormatError{What: "ELF header", Err: err}
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, &FormatError{What: "ELF header", Err: fmt.Errorf("%s %s, want 64-bit little endian", f.Class, f.Data)}
	}
	return f, nil
}

// WithFile opens and parses the ELF file at path, calls fn and closes the file.
// Errors name the path.
func WithFile(path string, fn func(*elf.File, *os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	e, err := Open(f)
	if err == nil {
		err = fn(e, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func readObject(f *elf.File) (*object, error) {
	o := new(object)
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, &FormatError{What: "program interpreter", Err: err}
		}
		o.interp = strings.TrimRight(string(b), "\x00")
	}
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return o, nil
	}
	var soname, rpath, runpath []string
	for tag, into := range map[elf.DynTag]*[]string{
		elf.DT_NEEDED: &o.needed, elf.DT_SONAME: &soname, elf.DT_RPATH: &rpath, elf.DT_RUNPATH: &runpath,
	} {
		s, err := f.DynString(tag)
		if err != nil {
			return nil, &FormatError{What: "dynamic section", Err: err}
		}
		*into = s
	}
	if len(soname) > 0 {
		o.soname = soname[0]
	}
	o.rpath, o.runpath = splitPath(rpath), splitPath(runpath)
	return o, o.readVersions(f)
}

func (o *object) readVersions(f *elf.File) error {
	needs, err := f.DynamicVersionNeeds()
	if err != nil {
		return &FormatError{What: "symbol version needs", Err: err}
	}
	defs, err := f.DynamicVersions()
	if err != nil {
		return &FormatError{What: "symbol version definitions", Err: err}
	}
	for _, d := range defs {
		o.defs = append(o.defs, d.Name)
	}
	for _, n := range needs {
		v := VersionNeed{Library: n.Name}
		for _, d := range n.Needs {
			v.Versions = append(v.Versions, d.Dep)
		}
		slices.SortFunc(v.Versions, CompareVersions)
		o.vers = append(o.vers, v)
	}
	return nil
}

func splitPath(values []string) []string {
	var out []string
	for _, v := range values {
		for p := range strings.SplitSeq(v, ":") {
			if p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}
