package elfdep

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"iter"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Candidate is a name in a file's read-only data that looks like a library
// opened at run time.
type Candidate struct {
	Name string // without directories
	In   string // SONAME of the file
	// CanOpen is true where the file itself imports or defines dlopen or
	// dlmopen. Otherwise the name is most likely data, such as an argument
	// for a linker, but another library could still open it on its behalf.
	CanOpen bool
	// Split is true where the name was put together from two 16-byte
	// constants, the way compilers copy short strings; it may then be wrong.
	Split bool
}

// libraryName is what dlopen is given on Linux, alone or as a printf pattern.
// Prose that merely mentions a library has blanks and does not match.
const libraryName = `^[A-Za-z0-9_%][A-Za-z0-9_+.%-]*\.so(\.[0-9%][0-9A-Za-z.%]*)?$`

// maxNameLen bounds the strings that are considered; PATH_MAX is far beyond
// anything a library writes down.
const maxNameLen = 512

// OpenedNames returns the names of libraries that the ELF file at path may
// open at run time, sorted, each once. It looks at complete strings of
// sections with initialised data (not at the names in the dynamic
// section, and not at GPU code), and at names that the compiler cut into two
// overlapping 16-byte constants. Names that are put together from smaller
// pieces, or are in instructions, are not found: the result is material
// for Review, no proof that there are no others.
func OpenedNames(path string) ([]Candidate, error) {
	var out []Candidate
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		o, err := readObject(f)
		if err != nil {
			return err
		}
		soname := o.soname
		if soname == "" {
			soname = path[strings.LastIndexByte(path, '/')+1:]
		}
		canOpen, err := namesSymbol(f, "dlopen", "dlmopen")
		if err != nil {
			return err
		}
		re := regexp.MustCompile(libraryName)
		seen := map[string]bool{}
		add := func(name string, split bool) {
			if name != soname && !seen[name] {
				seen[name] = true
				out = append(out, Candidate{Name: name, In: soname, CanOpen: canOpen, Split: split})
			}
		}
		for _, s := range f.Sections {
			if !holdsData(s) {
				continue
			}
			data, err := s.Data()
			if err != nil {
				return &FormatError{What: "section " + s.Name, Err: err}
			}
			wholeNames(data, re, add)
			splitNames(data, s.Addr, re, add)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Candidate) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// DataStrings returns the NUL-terminated strings that contain marker in the
// sections with initialised data of the ELF file at path, in the order of the
// file, once for each time that marker occurs. Strings of more than maxNameLen
// bytes before or after marker are left out.
func DataStrings(path, marker string) ([]string, error) {
	var out []string
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		for _, s := range f.Sections {
			if !holdsData(s) {
				continue
			}
			data, err := s.Data()
			if err != nil {
				return &FormatError{What: "section " + s.Name, Err: err}
			}
			out = slices.AppendSeq(out, stringsWith(data, marker))
		}
		return nil
	})
	return out, err
}

// Imports returns the symbols that the ELF file at path imports and
// whose names begin with prefix, sorted: the proof of which functions of a
// library a program can call at all.
func Imports(path, prefix string) ([]string, error) {
	var out []string
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		syms, err := DynamicSymbols(f)
		for _, s := range syms {
			if s.Section == elf.SHN_UNDEF && strings.HasPrefix(s.Name, prefix) {
				out = append(out, s.Name)
			}
		}
		return err
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// DynamicSymbols returns the entries of the dynamic symbol table; a file without
// one has none.
func DynamicSymbols(f *elf.File) ([]elf.Symbol, error) {
	syms, err := f.DynamicSymbols()
	switch {
	case errors.Is(err, elf.ErrNoSymbols):
		return nil, nil
	case err != nil:
		return nil, &FormatError{What: "dynamic symbols", Err: err}
	}
	return syms, nil
}

func namesSymbol(f *elf.File, names ...string) (bool, error) {
	syms, err := DynamicSymbols(f)
	return slices.ContainsFunc(syms, func(s elf.Symbol) bool { return slices.Contains(names, s.Name) }), err
}

// gpuCodeSection is where clang puts HIP's code for the GPU.
const gpuCodeSection = ".hip_fatbin"

func holdsData(s *elf.Section) bool {
	return s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_ALLOC != 0 && s.Flags&(elf.SHF_EXECINSTR|elf.SHF_COMPRESSED) == 0 &&
		s.Name != gpuCodeSection && s.Name != ".interp" && !strings.HasPrefix(s.Name, ".eh_frame")
}

func wholeNames(data []byte, re *regexp.Regexp, add func(string, bool)) {
	for s := range stringsWith(data, ".so") {
		name := path.Base(s)
		if re.MatchString(name) && strings.Count(name, ".so") == 1 { // else it is several constants in a row
			add(name, false)
		}
	}
}

// stringsWith returns the NUL-terminated strings of data that contain marker and
// are shorter than maxNameLen before and after it, once for each marker.
func stringsWith(data []byte, marker string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for at := 0; ; {
			i := bytes.Index(data[at:], []byte(marker))
			if i < 0 {
				return
			}
			i += at
			at = i + len(marker)
			low := max(0, i-maxNameLen)
			from := low + bytes.LastIndexByte(data[low:i], 0) + 1
			if from == low && low > 0 {
				continue // no start in sight
			}
			to := bytes.IndexByte(data[i:min(len(data), i+maxNameLen)], 0)
			if to >= 0 && !yield(string(data[from:i+to])) {
				return
			}
		}
	}
}

// splitNames joins two aligned 16-byte constants that overlap: a string of 17
// to 31 bytes is copied as its first 16 and its last 16.
func splitNames(data []byte, addr uint64, re *regexp.Regexp, add func(string, bool)) {
	const width = 16
	var heads, tails []string
	for i := int(-addr & (width - 1)); i+width <= len(data); i += width {
		c := string(data[i : i+width])
		t := strings.TrimRight(c, "\x00")
		switch {
		case strings.HasPrefix(c, "lib") && !strings.ContainsFunc(c, notInName):
			heads = append(heads, c)
		case len(t) > 4 && strings.Contains(t, ".so") && !strings.ContainsFunc(t, notInName):
			tails = append(tails, t)
		}
	}
	for _, l := range []*[]string{&heads, &tails} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
	for _, h := range heads {
		for _, t := range tails {
			for k := min(len(t), width) - 1; k > 0; k-- {
				if name := h + t[k:]; strings.HasSuffix(h, t[:k]) && re.MatchString(name) {
					add(name, true)
					break
				}
			}
		}
	}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._+-", r)
}

// UnreviewedError lists names found in the files of a bundle about which
// nobody has decided.
type UnreviewedError struct{ Names []Candidate }

// Error implements error.
func (e *UnreviewedError) Error() string {
	parts := make([]string, len(e.Names))
	for i, c := range e.Names {
		parts[i] = fmt.Sprintf("%s (in %s)", c.Name, c.In)
	}
	return "libraries that may be opened at run time and are not reviewed: " + strings.Join(parts, ", ") +
		"; add each to the reviewed list, to be bundled or excluded, with the reason"
}
