package survey

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// A Difference is an instruction that a disassembler prints in another way.
type Difference struct {
	Addr      uint64
	Words     []uint32
	Got, Want string
}

// Compare disassembles a code object with llvm-objdump and with package rdna3. It returns the number of instructions,
// and calls differ for each that is not the same.
func Compare(ctx context.Context, objdump string, c CodeObject, differ func(Difference)) (int, error) {
	tmp, err := os.CreateTemp("", "code-*.co")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if _, err := tmp.Write(c.Code); err != nil {
		return 0, err
	}
	if err := tmp.Close(); err != nil {
		return 0, err
	}
	symbols, err := addresses(c.Code)
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, objdump, "-d", "-z", "--mcpu="+string(c.Target), tmp.Name())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	want := bufio.NewScanner(out)
	want.Buffer(nil, 1<<20)
	n := 0
	var failed error
	err = c.Text(func(addr uint64, words []uint32, i *rdna3.Inst, derr error) {
		line := nextInstruction(want)
		n++
		if failed != nil {
			return
		}
		text, at, ok := strings.Cut(line, "//")
		text = unwrapLiterals(strings.TrimSpace(text))
		at, _, _ = strings.Cut(strings.TrimSpace(at), ":")
		got := "v_illegal"
		if derr == nil {
			got = i.String()
		}
		switch theirs, err := strconv.ParseUint(at, 16, 64); {
		case !ok || err != nil || theirs != addr:
			failed = fmt.Errorf("at %#x (%08x %s) the disassembler has %q", addr, words, got, line)
		case got != text && !sameTarget(i, addr, text, symbols):
			differ(Difference{addr, words, got, text})
		}
	})
	if err == nil {
		err = failed
	}
	for want.Scan() { // a disassembler that cannot write does not end
	}
	if werr := cmd.Wait(); werr != nil && err == nil {
		err = fmt.Errorf("%s: %w\n%s", objdump, werr, stderr.String())
	}
	return n, err
}

var wrapped = regexp.MustCompile(`lit\((0x[0-9a-f]+)\)`)

// unwrapLiterals writes a literal that would fit the instruction without a word of its own as a number, as LLVM did
// before version 22.
func unwrapLiterals(text string) string {
	return wrapped.ReplaceAllStringFunc(text, func(s string) string {
		hex := wrapped.FindStringSubmatch(s)[1]
		x, err := strconv.ParseUint(hex, 0, 32)
		if n := int32(uint32(x)); err == nil && n >= -16 && n <= 64 {
			return strconv.Itoa(int(n))
		}
		return hex
	})
}

// nextInstruction returns the next line with an instruction.
func nextInstruction(s *bufio.Scanner) string {
	for s.Scan() {
		if strings.HasPrefix(s.Text(), "\t") {
			return s.Text()
		}
	}
	return ""
}

// A symbol is a label at an address. Kernels of the same object have labels of the same name.
type symbol struct {
	name string
	addr uint64
}

// addresses returns the symbols of a code object.
func addresses(code []byte) (map[symbol]bool, error) {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	out := map[symbol]bool{}
	syms, _ := f.Symbols() // a stripped file has none
	dyn, _ := f.DynamicSymbols()
	for _, s := range append(syms, dyn...) {
		out[symbol{s.Name, s.Value}] = true
	}
	return out, nil
}

// sameTarget reports whether text is the branch i to a symbol at its target.
func sameTarget(i *rdna3.Inst, addr uint64, text string, symbols map[symbol]bool) bool {
	if i == nil || i.Format != rdna3.SOPP {
		return false
	}
	name, label, _ := strings.Cut(text, " ")
	return name == i.Op.Name && symbols[symbol{label, addr + 4 + uint64(int64(i.Imm)*4)}]
}

var digits = regexp.MustCompile(`0x[0-9a-f]+|\d+`)

// Form returns an instruction without its numbers, so that instructions of the same form are the same.
func Form(text string) string {
	name, args, _ := strings.Cut(text, " ")
	return name + " " + digits.ReplaceAllString(args, "N")
}
