package elfdep

import (
	"debug/elf"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Symbol is a symbol that one file imports from another.
type Symbol struct {
	Name    string
	Version string // "" where the file does not say which
}

// String returns name@version, as the tools of binutils print it.
func (s Symbol) String() string {
	if s.Version == "" {
		return s.Name
	}
	return s.Name + "@" + s.Version
}

// Undefined is a symbol that nothing in a closure defines.
type Undefined struct {
	Symbol
	In string // SONAME of the file that needs it
}

// UnresolvedError lists the symbols that nothing defines.
type UnresolvedError struct{ Symbols []Undefined }

// Error names the first of them and counts the others.
func (e *UnresolvedError) Error() string {
	const most = 20
	var parts []string
	for _, u := range e.Symbols[:min(most, len(e.Symbols))] {
		parts = append(parts, fmt.Sprintf("%s (needed by %s)", u.Symbol, u.In))
	}
	if more := len(e.Symbols) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return "symbols that no library of the closure defines in the required version: " + strings.Join(parts, ", ")
}

// definitions are the versions in which a closure defines a symbol.
type definitions struct {
	versions []string
	any      bool // by a file without versions, which the loader accepts for every one
}

// Unresolved returns the symbols that the files of a closure import and that
// none of them defines in the required version, weak ones aside, in the order
// of libs. With BIND_NOW each of them would stop the program at start.
func Unresolved(libs []Lib) ([]Undefined, error) {
	defined := map[string]*definitions{}
	var asked []Undefined
	for _, l := range libs {
		err := WithFile(l.Path, func(f *elf.File, _ *os.File) error {
			versions, err := f.DynamicVersions()
			if err != nil {
				return &FormatError{What: "symbol version definitions", Err: err}
			}
			syms, err := DynamicSymbols(f)
			for _, s := range syms {
				switch bind := elf.ST_BIND(s.Info); {
				case s.Section != elf.SHN_UNDEF && bind != elf.STB_LOCAL:
					d := defined[s.Name]
					if d == nil {
						d = new(definitions)
						defined[s.Name] = d
					}
					d.versions = append(d.versions, s.Version)
					d.any = d.any || len(versions) == 0
				case s.Section == elf.SHN_UNDEF && bind != elf.STB_WEAK && s.Name != "":
					asked = append(asked, Undefined{Symbol{s.Name, s.Version}, l.SONAME})
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(asked, func(u Undefined) bool {
		d := defined[u.Name]
		return d != nil && (d.any || u.Version == "" || slices.Contains(d.versions, u.Version))
	}), nil
}

// ImportsFrom returns the symbols that the ELF file at path imports and that
// the library at library defines in the required version, sorted by name:
// what that library must keep for that file. The version is that of the
// library.
func ImportsFrom(path, library string) ([]Symbol, error) {
	defined := map[Symbol]bool{}
	err := WithFile(library, func(f *elf.File, _ *os.File) error {
		syms, err := DynamicSymbols(f)
		for _, s := range syms {
			if s.Section != elf.SHN_UNDEF && elf.ST_BIND(s.Info) != elf.STB_LOCAL {
				defined[Symbol{s.Name, s.Version}] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []Symbol
	err = WithFile(path, func(f *elf.File, _ *os.File) error {
		syms, err := DynamicSymbols(f)
		for _, s := range syms {
			if sym := (Symbol{s.Name, s.Version}); s.Section == elf.SHN_UNDEF && defined[sym] {
				out = append(out, sym)
			}
		}
		return err
	})
	slices.SortFunc(out, func(a, b Symbol) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out), err
}
