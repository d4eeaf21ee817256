package elfgen

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"

	"github.com/klauspost/compress/zstd"
)

// Entry is one entry of an offload bundle.
type Entry struct {
	ID   string
	Code []byte
}

// CodeObject returns an AMDGPU code object of ABI version 5 with the given machine number (the low
// byte of e_flags) and a kernel descriptor for each kernel. fill bytes of code make it larger.
func CodeObject(flags uint32, kernels []string, fill int) []byte {
	s := Spec{Machine: elf.EM_AMDGPU, ABIVersion: 3, Flags: flags}
	code := make([]byte, fill+64)
	for i := range code {
		code[i] = byte(i*7 + 1)
	}
	s.Sections = []Section{{Name: ".text", Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Data: code}}
	for _, k := range kernels {
		s.Symbols = append(s.Symbols, Symbol{Name: k}, Symbol{Name: k + ".kd", Size: 64})
	}
	return s.Bytes()
}

// Bundle returns an offload bundle. Code is aligned to 4096, as clang aligns it.
func Bundle(entries ...Entry) []byte {
	const align = 4096
	head := 24 + 8
	for _, e := range entries {
		head += 24 + len(e.ID)
	}
	var table, code bytes.Buffer
	table.WriteString("__CLANG_OFFLOAD_BUNDLE__")
	put(&table, uint64(len(entries)))
	off := (head + align - 1) / align * align
	start := off
	for _, e := range entries {
		for start+code.Len() < off {
			code.WriteByte(0)
		}
		put(&table, [3]uint64{uint64(off), uint64(len(e.Code)), uint64(len(e.ID))})
		table.WriteString(e.ID)
		code.Write(e.Code)
		off = (off + len(e.Code) + align - 1) / align * align
	}
	if code.Len() == 0 {
		return table.Bytes()
	}
	for table.Len() < start {
		table.WriteByte(0)
	}
	return append(table.Bytes(), code.Bytes()...)
}

// FatBinary concatenates bundles with the padding that a linker puts between them and returns their
// section.
func FatBinary(bundles ...[]byte) Section {
	var b bytes.Buffer
	for _, x := range bundles {
		pad(&b, 4096)
		b.Write(x)
	}
	return Section{Name: ".hip_fatbin", Flags: elf.SHF_ALLOC, Align: 4096, Data: b.Bytes()}
}

// Compress compresses a bundle as clang's --offload-compress does. version is 1, 2 or 3, method
// "zlib" or "zstd".
func Compress(bundle []byte, version uint16, method string) []byte {
	var packed bytes.Buffer
	var code uint16
	switch method {
	case "zlib":
		z := zlib.NewWriter(&packed)
		must(z.Write(bundle))
		must(0, z.Close())
	case "zstd":
		code = 1
		z, err := zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1))
		must(0, err)
		must(z.Write(bundle))
		must(0, z.Close())
	default:
		panic("elfgen: unknown method " + method)
	}
	head := binary.LittleEndian.AppendUint16([]byte("CCOB"), version)
	head = binary.LittleEndian.AppendUint16(head, code)
	const hashSize = 8
	switch version {
	case 1:
		head = binary.LittleEndian.AppendUint32(head, uint32(len(bundle)))
	case 2:
		head = binary.LittleEndian.AppendUint32(head, uint32(len(head)+8+hashSize+packed.Len()))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(bundle)))
	case 3:
		head = binary.LittleEndian.AppendUint64(head, uint64(len(head)+16+hashSize+packed.Len()))
		head = binary.LittleEndian.AppendUint64(head, uint64(len(bundle)))
	}
	head = binary.LittleEndian.AppendUint64(head, 0x1122334455667788)
	return append(head, packed.Bytes()...)
}

func must(_ int, err error) {
	if err != nil {
		panic(err) // writing to memory
	}
}
