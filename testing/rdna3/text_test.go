package rdna3

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestDisassembly compares instructions of each form that occurs in the shipped code with the text of LLVM 21:
// testdata/disassembly.txt has lines of llvm-objdump -d, up to twelve forms of operands for each name.
// testing/e2e compares every shipped instruction.
func TestDisassembly(t *testing.T) {
	f, err := os.Open("testdata/disassembly.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, n := bufio.NewScanner(f), 0
	for lines.Scan() {
		encoding, want, _ := strings.Cut(lines.Text(), "\t")
		words := parseWords(t, encoding)
		i, err := Decode(words)
		if err != nil {
			if want != "v_illegal" {
				t.Errorf("%s (%s): %v", encoding, want, err)
			}
			continue
		}
		if got := i.String(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", encoding, got, want)
		}
		if i.Size != 4*len(words) {
			t.Errorf("%s (%s) has %d bytes", encoding, want, i.Size)
		}
		if !Implemented(i) && i.Op.Name != "s_code_end" {
			t.Errorf("%s occurs in shipped code and is not implemented", want)
		}
		n++
	}
	if n < 1000 {
		t.Errorf("only %d instructions", n)
	}
}

func parseWords(t testing.TB, s string) (words []uint32) {
	t.Helper()
	for _, f := range strings.Fields(s) {
		x, err := strconv.ParseUint(f, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, uint32(x))
	}
	return words
}

func TestDecodeRejects(t *testing.T) {
	if _, err := Decode(nil); !errors.Is(err, ErrShort) {
		t.Errorf("no words: %v", err)
	}
	// v_add_f32 with a literal that is not there, and a word of two that is alone.
	for _, words := range [][]uint32{{0x060000ff}, {0xd6130000}} {
		if _, err := Decode(words); !errors.Is(err, ErrShort) {
			t.Errorf("%08x: %v", words, err)
		}
	}
	var unknown *UnknownError
	if _, err := Decode([]uint32{0, 0, 0}); !errors.As(err, &unknown) {
		t.Errorf("zeros: %v", err)
	}
}

// FuzzDecode checks that no words make the decoder or the disassembler panic.
func FuzzDecode(f *testing.F) {
	f.Add(uint32(0xca2000f2), uint32(0x2f3050ff), uint32(0x400))
	f.Add(uint32(0x7e0002fa), uint32(0xff0101ff), uint32(0))
	f.Fuzz(func(_ *testing.T, a, b, c uint32) {
		if i, err := Decode([]uint32{a, b, c}); err == nil {
			_ = i.String()
			_ = Implemented(i)
		}
	})
}
