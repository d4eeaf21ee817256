package rdna3

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An Object is a code object that is loaded into memory.
type Object struct {
	Base    uint64
	Image   []byte
	Kernels map[string]*Kernel
	Program *Program
}

// A Kernel is a function that a dispatch starts.
type Kernel struct {
	Name       string
	Entry      uint64
	Descriptor uint64 // address of its descriptor
	Lanes      int
	LDS        uint32
	Scratch    uint32 // bytes of a lane
	Args       []Arg
	ArgBytes   uint32
	MaxGroup   int

	mode      uint32
	user      []int
	userCount int
	groupIDs  [3]bool
	vgprs     int // registers that a wave has
	program   *Program
}

// ObjectID returns a short digest that identifies a code object, also where bytes follow it: those of a fat binary are
// aligned, and its reader does not know their exact size.
func ObjectID(code []byte) string {
	const offsetAt, sizeAt, countAt, header = 40, 58, 60, 64 // of the section headers, which are last in the file
	if len(code) >= header {
		le := binary.LittleEndian
		end := le.Uint64(code[offsetAt:]) + uint64(le.Uint16(code[sizeAt:]))*uint64(le.Uint16(code[countAt:]))
		if end >= header && end < uint64(len(code)) {
			code = code[:end]
		}
	}
	sum := sha256.Sum256(code)
	return hex.EncodeToString(sum[:8])
}

// Registers that the kernel descriptor can ask for, in their order.
const (
	userBuffer = iota
	userPacket
	userQueue
	userKernarg
	userDispatchID
	userFlatScratch
	userScratchSize
	userKinds
)

// Load maps a code object at base and returns it. The memory has its segments, with the relocations applied.
func (m *Memory) Load(code []byte, base uint64) (*Object, error) {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	const amdgpu = 224
	if f.Machine != amdgpu {
		return nil, fmt.Errorf("the file is for machine %d, and not for AMDGPU", f.Machine)
	}
	o := &Object{Base: base, Kernels: map[string]*Kernel{}}
	if err := o.segments(f); err != nil {
		return nil, err
	}
	if err := o.relocate(f); err != nil {
		return nil, err
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	args, err := metadata(f)
	if err != nil {
		return nil, err
	}
	for _, s := range syms {
		name, ok := strings.CutSuffix(s.Name, ".kd")
		if !ok || s.Section == elf.SHN_UNDEF {
			continue
		}
		k, err := o.kernel(name, s.Value)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", name, err)
		}
		if a := args[name]; a != nil {
			k.Args, k.ArgBytes, k.MaxGroup = a.args, a.bytes, a.maxGroup
		}
		o.Kernels[name] = k
	}
	m.Map(base, o.Image)
	return o, nil
}

// segments copies the loadable segments to their places.
func (o *Object) segments(f *elf.File) error {
	var end uint64
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			end = max(end, p.Vaddr+p.Memsz)
		}
	}
	const most = 1 << 32
	if end == 0 || end > most {
		return fmt.Errorf("the segments end at %#x", end)
	}
	o.Image = make([]byte, end)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if _, err := io.ReadFull(p.Open(), o.Image[p.Vaddr:p.Vaddr+p.Filesz]); err != nil {
			return err
		}
		if p.Flags&elf.PF_X != 0 {
			text := o.Image[p.Vaddr : p.Vaddr+p.Memsz]
			words := make([]uint32, len(text)/4)
			for n := range words {
				words[n] = load32(text[4*n:])
			}
			o.Program = NewProgram(o.Base+p.Vaddr, words)
		}
	}
	if o.Program == nil {
		return errors.New("no segment is executable")
	}
	return nil
}

// Types of relocations that a linked code object may have.
const (
	relocAbs64      = 3
	relocRelative64 = 13
)

func (o *Object) relocate(f *elf.File) error {
	s := f.Section(".rela.dyn")
	if s == nil {
		return nil
	}
	data, err := s.Data()
	if err != nil {
		return err
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		return err
	}
	const size = 24
	le := binary.LittleEndian
	for ; len(data) >= size; data = data[size:] {
		at, info, addend := le.Uint64(data), le.Uint64(data[8:]), le.Uint64(data[16:])
		if at+8 > uint64(len(o.Image)) {
			return fmt.Errorf("a relocation is at %#x, outside the segments", at)
		}
		value := o.Base + addend
		switch uint32(info) {
		case relocRelative64:
		case relocAbs64:
			n := info >> 32
			if n == 0 || n > uint64(len(syms)) {
				return fmt.Errorf("a relocation names symbol %d", n)
			}
			value += syms[n-1].Value
		default:
			return fmt.Errorf("relocation of type %d", uint32(info))
		}
		le.PutUint64(o.Image[at:], value)
	}
	return nil
}

// descriptorSize is the size of a kernel descriptor.
const descriptorSize = 64

// kernel reads the descriptor at an offset of the image.
func (o *Object) kernel(name string, at uint64) (*Kernel, error) {
	if at+descriptorSize > uint64(len(o.Image)) {
		return nil, errors.New("the descriptor is outside the segments")
	}
	d := o.Image[at:]
	le := binary.LittleEndian
	rsrc1, rsrc2, properties := le.Uint32(d[48:]), le.Uint32(d[52:]), le.Uint16(d[56:])
	k := &Kernel{
		Name: name, Descriptor: o.Base + at, Entry: o.Base + at + le.Uint64(d[16:]),
		LDS: le.Uint32(d), Scratch: le.Uint32(d[4:]), ArgBytes: le.Uint32(d[8:]), Lanes: 64,
		// Rounding and denormals, then the bits for clamps and for NaNs.
		mode:      field(rsrc1, 19, 12) | field(rsrc1, 21, 21)<<8 | field(rsrc1, 23, 23)<<9,
		userCount: int(field(rsrc2, 5, 1)),
		groupIDs:  [3]bool{bit(rsrc2, 7), bit(rsrc2, 8), bit(rsrc2, 9)},
		program:   o.Program,
	}
	const wave32 = 1 << 10
	if properties&wave32 != 0 {
		k.Lanes = 32
	}
	// The descriptor counts registers in blocks of eight, or of four for waves of 64 lanes, less one.
	k.vgprs = min(vgprs, int(field(rsrc1, 5, 0)+1)*256/k.Lanes)
	for u := range userKinds {
		if properties>>u&1 != 0 {
			k.user = append(k.user, u)
		}
	}
	return k, nil
}
