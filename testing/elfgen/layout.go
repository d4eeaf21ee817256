package elfgen

import (
	"bytes"
	"debug/elf"
)

// layout places all sections one after another, with addresses equal to their
// offsets, and puts the headers before and after them.
func (w *writer) layout() []byte {
	names := stringTable{}
	shstr := w.add(section{name: ".shstrtab", Section64: elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}})
	for i := range w.sections {
		w.sections[i].Name = names.add(w.sections[i].name)
	}
	w.sections[shstr].data = names.b

	const maxProgs = 8
	var body bytes.Buffer
	body.Write(make([]byte, headerSize+maxProgs*progSize))
	for i := 1; i < len(w.sections); i++ {
		s := &w.sections[i]
		pad(&body, s.Addralign)
		s.Off, s.Size = uint64(body.Len()), uint64(len(s.data))
		if s.Flags&uint64(elf.SHF_ALLOC) != 0 {
			s.Addr = s.Off
		}
		if s.Type != uint32(elf.SHT_NOBITS) {
			body.Write(s.data)
		}
	}
	pad(&body, 8)
	shoff := body.Len()
	w.sections[0].Addralign = 0
	for _, s := range w.sections {
		put(&body, s.Section64)
	}

	progs := w.programs(uint64(shoff))
	head := elf.Header64{
		Type: uint16(w.spec.Type), Machine: uint16(w.spec.Machine), Version: uint32(elf.EV_CURRENT),
		Phoff: headerSize, Shoff: uint64(shoff), Flags: w.spec.Flags,
		Ehsize: headerSize, Phentsize: progSize, Phnum: uint16(len(progs)),
		Shentsize: sectionSize, Shnum: uint16(len(w.sections)), Shstrndx: uint16(shstr),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	head.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	head.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	head.Ident[elf.EI_ABIVERSION] = w.spec.ABIVersion
	var front bytes.Buffer
	put(&front, head)
	for _, p := range progs {
		put(&front, p)
	}
	out := body.Bytes()
	copy(out, front.Bytes())
	return out
}

func pad(b *bytes.Buffer, align uint64) {
	for align > 1 && uint64(b.Len())%align != 0 {
		b.WriteByte(0)
	}
}

func (w *writer) programs(end uint64) []elf.Prog64 {
	s := w.spec
	var out []elf.Prog64
	over := func(typ elf.ProgType, flags elf.ProgFlag, name string) {
		for _, sec := range w.sections {
			if sec.name == name {
				out = append(out, elf.Prog64{
					Type: uint32(typ), Flags: uint32(flags), Off: sec.Off, Vaddr: sec.Addr, Paddr: sec.Addr,
					Filesz: sec.Size, Memsz: sec.Size, Align: 8,
				})
			}
		}
	}
	over(elf.PT_INTERP, elf.PF_R, ".interp")
	out = append(out, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Filesz: end, Memsz: end, Align: 4096})
	if s.WritableRun {
		out = append(out, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X), Off: 0, Filesz: 64, Memsz: 64, Align: 4096})
	}
	over(elf.PT_DYNAMIC, elf.PF_R|elf.PF_W, ".dynamic")
	if s.RELRO {
		over(elf.PT_GNU_RELRO, elf.PF_R, ".dynamic")
	}
	if !s.NoStack {
		flags := elf.PF_R | elf.PF_W
		if s.ExecStack {
			flags |= elf.PF_X
		}
		out = append(out, elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(flags)})
	}
	return out
}
