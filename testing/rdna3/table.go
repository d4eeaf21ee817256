package rdna3

import (
	_ "embed" // the table of instructions
	"fmt"
	"strconv"
	"strings"
)

//go:generate sh -c "python3 table.py >table.txt"

//go:embed table.txt
var tableText string

// A Format is an encoding of instructions.
type Format uint8

// The encodings of RDNA 3 that compute kernels use.
const (
	SOP1 Format = iota
	SOP2
	SOPC
	SOPK
	SOPP
	SMEM
	VOP1
	VOP2
	VOPC
	VOP3
	VOP3SD // VOP3 with a scalar destination besides the vector one
	VOP3P
	VOPD
	DS
	FLAT
	GLOBAL
	SCRATCH
	MUBUF
	formats
)

var formatNames = [formats]string{
	"SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "SMEM", "VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P", "VOPD",
	"DS", "FLAT", "GLOBAL", "SCRATCH", "MUBUF",
}

// String returns the name of the encoding as AMD's reference has it.
func (f Format) String() string { return formatNames[f] }

// A Kind is the number format and the width of an operand.
type Kind struct {
	Letters string // "f", "i", "u", "b", "bf", "iu", "mask", "label"
	Bits    int    // of one number
	Count   int    // numbers in the operand; 1 unless packed
}

// Registers returns how many registers of 32 bits hold the operand.
func (k Kind) Registers() int { return max(1, k.Bits*k.Count/32) }

// An Op is an instruction of the table, whatever encoding it has in a program.
type Op struct {
	Format Format // its shortest encoding
	Code   uint16 // its number in that encoding
	Name   string // without the suffix for the encoding
	Dst    *Kind  // nil without one
	Src    []Kind
}

// Offsets of the opcodes of shorter encodings in VOP3.
const (
	vop3OfVOP2 = 256
	vop3OfVOP1 = 384
)

// table has the instructions by encoding and opcode.
var table = func() (t [formats]map[uint16]*Op) {
	for i := range t {
		t[i] = map[uint16]*Op{}
	}
	for line := range strings.Lines(tableText) {
		op, err := parseOp(strings.Fields(line))
		if err != nil {
			panic(fmt.Sprintf("table.txt: %q: %v", line, err))
		}
		t[op.Format][op.Code] = op
	}
	for f, offset := range map[Format]uint16{VOPC: 0, VOP2: vop3OfVOP2, VOP1: vop3OfVOP1} {
		for code, op := range t[f] {
			if strings.Contains(op.Name, "_co_ci_") {
				t[VOP3SD][offset+code] = op
				continue
			}
			t[VOP3][offset+code] = op
		}
	}
	return t
}()

// Ops returns the instructions of the table in no particular order, each once.
func Ops() []*Op {
	var out []*Op
	for f := range formats {
		for _, op := range table[f] {
			if op.Format == f {
				out = append(out, op)
			}
		}
	}
	return out
}

func parseOp(fields []string) (*Op, error) {
	const name, dst, src = 2, 3, 4
	if len(fields) < src {
		return nil, fmt.Errorf("%d fields", len(fields))
	}
	op := &Op{Name: fields[name]}
	for f, n := range formatNames {
		if n == fields[0] {
			op.Format = Format(f)
		}
	}
	code, err := strconv.ParseUint(fields[1], 10, 16)
	if err != nil {
		return nil, err
	}
	op.Code = uint16(code)
	for i, f := range fields[dst:] {
		if f == "-" {
			continue
		}
		k, err := parseKind(f)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			op.Dst = &k
		} else {
			op.Src = append(op.Src, k)
		}
	}
	return op, nil
}

// parseKind reads "f32", "2f16" or "mask".
func parseKind(s string) (Kind, error) {
	const digits = "0123456789"
	k := Kind{Count: 1}
	rest := strings.TrimLeft(s, digits)
	if count := strings.TrimSuffix(s, rest); count != "" {
		k.Count, _ = strconv.Atoi(count)
	}
	k.Letters = strings.TrimRight(rest, digits)
	if k.Letters == "mask" {
		return k, nil
	}
	bits, err := strconv.Atoi(strings.TrimPrefix(rest, k.Letters))
	k.Bits = bits
	return k, err
}
