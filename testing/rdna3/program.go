package rdna3

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// A TrapError reports that a kernel ran s_trap, as abort and failed assertions do.
type TrapError struct{ ID uint8 }

// Error implements error.
func (e *TrapError) Error() string { return fmt.Sprintf("trap %d", e.ID) }

// An OperandError reports an operand that has no meaning here.
type OperandError struct{ Reg Reg }

// Error implements error.
func (e *OperandError) Error() string { return fmt.Sprintf("operand %d has no value", e.Reg) }

// ErrNotImplemented is the error of an instruction that is decoded and cannot be run.
var ErrNotImplemented = errors.New("the instruction is not implemented")

// ErrHalted is the error of a wave that stops itself for a debugger, as after a trap.
var ErrHalted = errors.New("the wave halted")

// ErrOutside is the error of a jump out of the program.
var ErrOutside = errors.New("the program counter is outside the code")

// A Fault is what stopped a kernel.
type Fault struct {
	Kernel string
	Addr   uint64 // of the instruction
	Words  []uint32
	Text   string // the instruction, if it could be decoded
	Err    error
}

// Error implements error.
func (f *Fault) Error() string {
	return fmt.Sprintf("kernel %s at %#x: %08x %s: %v", f.Kernel, f.Addr, f.Words, f.Text, f.Err)
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// A Program is code with the steps that have been prepared so far. All waves share it.
type Program struct {
	base  uint64
	words []uint32
	steps []atomic.Pointer[step]
}

// NewProgram returns the program of the words at an address.
func NewProgram(base uint64, words []uint32) *Program {
	return &Program{base: base, words: words, steps: make([]atomic.Pointer[step], len(words))}
}

// Implemented reports whether the interpreter can run an instruction.
func Implemented(i *Inst) bool { return prepare(i) != nil }

// prepare returns the step of an instruction, or nil.
func prepare(i *Inst) *step {
	switch i.Format {
	case SOP1, SOP2, SOPC, SOPK, SOPP:
		return prepareSALU(i)
	case SMEM, DS, FLAT, GLOBAL, SCRATCH, MUBUF:
		return prepareMemory(i)
	case VOPD:
		return prepareDual(i, prepareVALU)
	}
	return prepareVALU(i)
}

// prepareDual returns the step of a dual instruction, or nil.
func prepareDual(i *Inst, prepare func(*Inst) *step) *step {
	x, y := prepare(i), prepare(i.Y)
	if x == nil || y == nil {
		return nil
	}
	s := *x
	s.run, s.y = runDual, y
	s.accelerateDual(x, y)
	return &s
}

// ready returns the step at an address if it has been prepared.
func (p *Program) ready(pc uint64) *step {
	if n := (pc - p.base) / 4; n < uint64(len(p.steps)) {
		return p.steps[n].Load()
	}
	return nil
}

// at prepares the step at an address.
func (p *Program) at(pc uint64) (*step, error) {
	n := (pc - p.base) / 4
	if pc < p.base || n >= uint64(len(p.steps)) {
		return nil, ErrOutside
	}
	i, err := Decode(p.words[n:])
	if err != nil {
		return nil, err
	}
	s := prepare(i)
	if s == nil {
		return nil, ErrNotImplemented
	}
	s.slot, s.size = uint8(n/2), uint64(i.Size)
	if i.Format >= VOP1 {
		s.vectors = 1
	}
	p.steps[n].Store(s)
	return s, nil
}

// run runs the wave until it ends, waits at a barrier or has run most instructions.
func (w *Wave) run(p *Program, most uint64) error {
	for stop := w.executed + most; w.executed < stop && !w.ended && !w.waiting; {
		w.at = w.pc
		s := p.ready(w.pc)
		if s == nil {
			var err error
			if s, err = p.at(w.pc); err != nil {
				return err
			}
		}
		w.executed++
		w.pc += s.size
		w.vectors += s.vectors
		s.run(w, s)
	}
	return nil
}

// fault describes the instruction before the program counter or at it.
func (p *Program) fault(kernel string, pc uint64, err error) *Fault {
	f := &Fault{Kernel: kernel, Addr: pc, Err: err}
	if n := (pc - p.base) / 4; pc >= p.base && n < uint64(len(p.words)) {
		f.Words = p.words[n:min(n+1, uint64(len(p.words)))]
		if i, err := Decode(p.words[n:]); err == nil {
			f.Words, f.Text = p.words[n:n+uint64(i.Size/4)], i.String()
			var m *MemoryError
			if errors.As(f.Err, &m) {
				m.Write = strings.Contains(i.Op.Name, "store") || strings.Contains(i.Op.Name, "atomic")
			}
		}
	}
	return f
}
