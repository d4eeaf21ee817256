// Package elfgen writes small ELF files for tests: programs and libraries with
// chosen dependencies, versions, protections and sections, and AMDGPU code
// objects in offload bundles.
//
// With it, tests need neither a compiler nor ROCm, and can create files that no toolchain would
// create. The files are well formed for a reader (headers, dynamic section, symbols) but contain no
// code: they cannot be run.
package elfgen

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
)

// Spec describes an ELF64 little endian file. The zero Spec is a shared
// library for amd64 without dependencies.
type Spec struct {
	Type       elf.Type    // 0: ET_DYN
	Machine    elf.Machine // 0: EM_X86_64
	ABIVersion uint8
	Flags      uint32 // e_flags

	Interp  string
	SONAME  string
	Needed  []string
	RPath   string
	RunPath string
	Wants   []Versions // symbol versions required
	Defines []string   // symbol versions provided
	Symbols []Symbol   // dynamic symbols

	BindNow     bool
	RELRO       bool
	ExecStack   bool // the stack segment is marked executable
	NoStack     bool // no stack segment at all
	TextRel     bool
	WritableRun bool // one more segment, writable and executable

	Static   bool // no dynamic section
	Sections []Section
}

// Versions are symbol versions of one library.
type Versions struct {
	Library string
	Names   []string
}

// Symbol is a dynamic symbol.
type Symbol struct {
	Name      string
	Size      uint64
	Undefined bool
	Weak      bool
	Version   string // one of Wants or Defines; "": none
}

// Section is an additional section. Its address is its offset in the file.
type Section struct {
	Name  string
	Type  elf.SectionType // 0: SHT_PROGBITS
	Flags elf.SectionFlag
	Align uint64 // 0: 16
	Data  []byte
}

const (
	headerSize  = 64
	progSize    = 56
	sectionSize = 64
)

type section struct {
	elf.Section64
	name string
	data []byte
}

type writer struct {
	spec     Spec
	sections []section
	strtab   stringTable
}

type stringTable struct{ b []byte }

func (t *stringTable) add(s string) uint32 {
	if len(t.b) == 0 {
		t.b = []byte{0}
	}
	if s == "" {
		return 0
	}
	if i := bytes.Index(t.b, append([]byte(s), 0)); i > 0 && t.b[i-1] == 0 {
		return uint32(i)
	}
	at := len(t.b)
	t.b = append(append(t.b, s...), 0)
	return uint32(at)
}

// Bytes returns the file.
func (s Spec) Bytes() []byte {
	if s.Type == 0 {
		s.Type = elf.ET_DYN
	}
	if s.Machine == 0 {
		s.Machine = elf.EM_X86_64
	}
	w := &writer{spec: s}
	w.add(section{}) // the null section
	if s.Interp != "" {
		w.add(section{name: ".interp", data: append([]byte(s.Interp), 0), Section64: elf.Section64{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC)}})
	}
	for _, e := range s.Sections {
		typ := e.Type
		if typ == 0 {
			typ = elf.SHT_PROGBITS
		}
		w.add(section{name: e.Name, data: e.Data, Section64: elf.Section64{Type: uint32(typ), Flags: uint64(e.Flags), Addralign: e.Align}})
	}
	if !s.Static {
		w.addDynamic()
	}
	return w.layout()
}

func (w *writer) add(s section) int {
	if s.Addralign == 0 {
		s.Addralign = 16
	}
	w.sections = append(w.sections, s)
	return len(w.sections) - 1
}

func (w *writer) addDynamic() {
	w.strtab.add("")
	dyn := w.dynamicEntries()
	syms, versym := w.symbols()
	verneed, needCount := w.verneed()
	verdef, defCount := w.verdef()

	str := len(w.sections)
	alloc := uint64(elf.SHF_ALLOC)
	w.add(section{name: ".dynstr", data: w.strtab.b, Section64: elf.Section64{Type: uint32(elf.SHT_STRTAB), Flags: alloc, Addralign: 1}})
	link := uint32(str)
	symtab := w.add(section{name: ".dynsym", data: syms, Section64: elf.Section64{Type: uint32(elf.SHT_DYNSYM), Flags: alloc, Link: link, Info: 1, Entsize: elf.Sym64Size}})
	w.add(section{name: ".gnu.version", data: versym, Section64: elf.Section64{Type: uint32(elf.SHT_GNU_VERSYM), Flags: alloc, Link: uint32(symtab), Entsize: 2}})
	if needCount > 0 {
		w.add(section{name: ".gnu.version_r", data: verneed, Section64: elf.Section64{Type: uint32(elf.SHT_GNU_VERNEED), Flags: alloc, Link: link, Info: needCount}})
	}
	if defCount > 0 {
		w.add(section{name: ".gnu.version_d", data: verdef, Section64: elf.Section64{Type: uint32(elf.SHT_GNU_VERDEF), Flags: alloc, Link: link, Info: defCount}})
	}
	w.add(section{name: ".dynamic", data: dyn, Section64: elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Flags: alloc | uint64(elf.SHF_WRITE), Link: link, Entsize: 16}})
}

func (w *writer) dynamicEntries() []byte {
	s := w.spec
	var out []byte
	put := func(tag elf.DynTag, v uint64) {
		out = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(out, uint64(tag)), v)
	}
	if s.RunPath != "" {
		put(elf.DT_RUNPATH, uint64(w.strtab.add(s.RunPath)))
	}
	if s.RPath != "" {
		put(elf.DT_RPATH, uint64(w.strtab.add(s.RPath)))
	}
	for _, n := range s.Needed {
		put(elf.DT_NEEDED, uint64(w.strtab.add(n)))
	}
	if s.SONAME != "" {
		put(elf.DT_SONAME, uint64(w.strtab.add(s.SONAME)))
	}
	var flags, flags1 uint64
	if s.BindNow {
		flags |= uint64(elf.DF_BIND_NOW)
		flags1 |= uint64(elf.DF_1_NOW)
	}
	if s.TextRel {
		flags |= uint64(elf.DF_TEXTREL)
		put(elf.DT_TEXTREL, 0)
	}
	put(elf.DT_FLAGS, flags)
	put(elf.DT_FLAGS_1, flags1)
	put(elf.DT_NULL, 0)
	return out
}

func (w *writer) symbols() (syms, versym []byte) {
	var b, v bytes.Buffer
	put(&b, elf.Sym64{})
	put(&v, uint16(0))
	for _, s := range w.spec.Symbols {
		bind := elf.STB_GLOBAL
		if s.Weak {
			bind = elf.STB_WEAK
		}
		sym := elf.Sym64{Name: w.strtab.add(s.Name), Info: elf.ST_INFO(bind, elf.STT_OBJECT), Shndx: 1, Value: 16, Size: s.Size}
		if s.Undefined {
			sym.Shndx, sym.Value = uint16(elf.SHN_UNDEF), 0
		}
		put(&b, sym)
		put(&v, w.spec.versionIndex(s))
	}
	return b.Bytes(), v.Bytes()
}

// The numbers of versions: required ones count from the first number, defined ones from the
// second. 1 means no version.
const (
	firstWanted  = uint16(101)
	firstDefined = uint16(2)
)

func (s Spec) versionIndex(sym Symbol) uint16 {
	index := firstWanted
	for _, v := range s.Wants {
		for _, n := range v.Names {
			if sym.Undefined && n == sym.Version {
				return index
			}
			index++
		}
	}
	if i := slices.Index(s.Defines, sym.Version); i >= 0 && !sym.Undefined {
		return firstDefined + uint16(i)
	}
	return 1
}

// verneed follows the layout of the Linux Standard Base, "Symbol Versioning".
func (w *writer) verneed() (data []byte, count uint32) {
	var b bytes.Buffer
	index := firstWanted
	for i, v := range w.spec.Wants {
		next := uint32(16 + 16*len(v.Names))
		if i == len(w.spec.Wants)-1 {
			next = 0
		}
		put(&b, struct {
			Version, Count  uint16
			File, Aux, Next uint32
		}{1, uint16(len(v.Names)), w.strtab.add(v.Library), 16, next})
		for j, n := range v.Names {
			next := uint32(16)
			if j == len(v.Names)-1 {
				next = 0
			}
			put(&b, struct {
				Hash         uint32
				Flags, Other uint16
				Name, Next   uint32
			}{0, 0, index, w.strtab.add(n), next})
			index++
		}
	}
	return b.Bytes(), uint32(len(w.spec.Wants))
}

func (w *writer) verdef() (data []byte, count uint32) {
	var b bytes.Buffer
	for i, n := range w.spec.Defines {
		next := uint32(28)
		if i == len(w.spec.Defines)-1 {
			next = 0
		}
		put(&b, struct {
			Version, Flags, Index, Count uint16
			Hash, Aux, Next              uint32
			Name, AuxNext                uint32
		}{1, 0, firstDefined + uint16(i), 1, 0, 20, next, w.strtab.add(n), 0})
	}
	return b.Bytes(), uint32(len(w.spec.Defines))
}

func put(b *bytes.Buffer, v any) {
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		panic(err) // only a value without a fixed size can fail
	}
}
