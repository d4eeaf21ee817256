package elfdep

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Protections are the protections that an ELF file was built with, as its flags
// and symbols show them.
type Protections struct {
	PIE             bool // position independent: a PIE program or a shared library
	RELRO           bool // a part of the data is made read-only after loading
	BindNow         bool // all symbols are bound at start, so with RELRO the GOT is read-only
	StackProtector  bool // calls __stack_chk_fail
	Fortify         []string
	NoExecStack     bool
	WritableCode    bool // a segment is writable and executable at once
	TextRelocations bool
	Runpath         []string // DT_RUNPATH and DT_RPATH, as written
}

// Hardening reads the protections of the ELF file at path. StackProtector and
// Fortify report that a file uses these functions; a small file may have nothing
// to protect.
func Hardening(path string) (Protections, error) {
	var h Protections
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		h.PIE = f.Type == elf.ET_DYN
		for _, p := range f.Progs {
			switch p.Type {
			case elf.PT_GNU_RELRO:
				h.RELRO = true
			case elf.PT_GNU_STACK:
				h.NoExecStack = p.Flags&elf.PF_X == 0
			case elf.PT_LOAD:
				h.WritableCode = h.WritableCode || p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X
			}
		}
		if err := h.readDynamic(f); err != nil {
			return &FormatError{What: "dynamic section", Err: err}
		}
		o, err := readObject(f)
		if err != nil {
			return err
		}
		h.Runpath = slices.Concat(o.rpath, o.runpath)
		return h.readSymbols(f)
	})
	return h, err
}

func (h *Protections) readDynamic(f *elf.File) error {
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil
	}
	has := func(tag elf.DynTag, bit uint64) (bool, error) {
		vs, err := f.DynValue(tag)
		return slices.ContainsFunc(vs, func(v uint64) bool { return v&bit != 0 || bit == 0 }), err
	}
	var errs []error
	flag := func(into *bool, tag elf.DynTag, bit uint64) {
		ok, err := has(tag, bit)
		*into = *into || ok
		errs = append(errs, err)
	}
	flag(&h.BindNow, elf.DT_BIND_NOW, 0)
	flag(&h.BindNow, elf.DT_FLAGS, uint64(elf.DF_BIND_NOW))
	flag(&h.BindNow, elf.DT_FLAGS_1, uint64(elf.DF_1_NOW))
	flag(&h.TextRelocations, elf.DT_TEXTREL, 0)
	flag(&h.TextRelocations, elf.DT_FLAGS, uint64(elf.DF_TEXTREL))
	return errors.Join(errs...)
}

func (h *Protections) readSymbols(f *elf.File) error {
	syms, err := DynamicSymbols(f)
	for _, s := range syms {
		switch {
		case s.Section != elf.SHN_UNDEF:
		case s.Name == "__stack_chk_fail":
			h.StackProtector = true
		case strings.HasPrefix(s.Name, "__") && strings.HasSuffix(s.Name, "_chk"):
			h.Fortify = append(h.Fortify, s.Name)
		}
	}
	slices.Sort(h.Fortify)
	return err
}

// Weak lists what a file lacks of the protections that every file of a bundle
// must have: position independence, RELRO, BIND_NOW, no executable stack, no
// writable code, no text relocations, and no RUNPATH but $ORIGIN.
func (h Protections) Weak() []string {
	var out []string
	for _, c := range []struct {
		bad  bool
		what string
	}{
		{!h.PIE, "not position independent"},
		{!h.RELRO, "no RELRO"},
		{!h.BindNow, "no BIND_NOW"},
		{!h.NoExecStack, "executable stack"},
		{h.WritableCode, "a segment both writable and executable"},
		{h.TextRelocations, "text relocations"},
	} {
		if c.bad {
			out = append(out, c.what)
		}
	}
	for _, r := range h.Runpath {
		if r != "$ORIGIN" && r != "${ORIGIN}" {
			out = append(out, fmt.Sprintf("RUNPATH %q is not $ORIGIN", r))
		}
	}
	return out
}

// DebugSections returns the names of the sections of the ELF file at path that
// only a debugger reads. A stripped file has none. The name of a separate
// debug file (.gnu_debuglink) is among them, as it points nowhere once shipped.
func DebugSections(path string) ([]string, error) {
	var out []string
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		for _, s := range f.Sections {
			switch {
			case strings.HasPrefix(s.Name, ".debug_"), strings.HasPrefix(s.Name, ".zdebug_"),
				s.Name == ".gdb_index", s.Name == ".symtab", strings.HasPrefix(s.Name, ".gnu_debug"):
				out = append(out, s.Name)
			}
		}
		return nil
	})
	return out, err
}
