//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// unpackedHIP unpacks the hip bundle for all targets.
func unpackedHIP(t *testing.T) *extract.Installed {
	t.Helper()
	packed, err := bundle.OpenFile(hipBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := packed.Close(); err != nil {
			t.Error(err)
		}
	}()
	in, err := extract.Extract(t.Context(), packed.Reader, extract.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestRDNA3DecodesShippedCode compares the decoder of testing/rdna3 with LLVM's on the code objects of the bundle: one
// of sixteen, in CI of sixty-four, or all with GOROCM_EMULATE=all. GOROCM_OBJDUMP names another disassembler.
func TestRDNA3DecodesShippedCode(t *testing.T) {
	every, objdump := cases.Of(64, 64, 16), "llvm-objdump-22"
	if os.Getenv("GOROCM_EMULATE") == "all" {
		every = 1
	}
	if s := os.Getenv("GOROCM_OBJDUMP"); s != "" {
		objdump = s
	}
	objects, instructions, differences := 0, 0, 0
	err := survey.Walk([]string{unpackedHIP(t).Dir}, func(c survey.CodeObject) error {
		objects++
		if objects%every != 0 {
			return nil
		}
		n, err := survey.Compare(t.Context(), objdump, c, func(d survey.Difference) {
			if differences++; differences < 20 {
				t.Errorf("%s %s %#x: %08x is %q, and not %q", c.File, c.Target, d.Addr, d.Words, d.Got, d.Want)
			}
		})
		instructions += n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d code objects, one of %d compared: %d instructions, %d differences", objects, every, instructions, differences)
	if differences > 0 || instructions == 0 {
		t.Errorf("%d differences in %d instructions", differences, instructions)
	}
}

// TestRDNA3RunsEveryOpcodeOfLibggml checks that the interpreter has every instruction that occurs in libggml-hip. CI looks
// at the code for one target: that for the other one is compiled from the same source for the same instructions.
func TestRDNA3RunsEveryOpcodeOfLibggml(t *testing.T) {
	one := []gfx.Target{"gfx1100"}
	counts, err := survey.Opcodes([]string{filepath.Join(unpackedHIP(t).Dir, "libggml-hip.so")}, cases.Of(one, one, []gfx.Target{"gfx1100", "gfx1101"})...)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if !c.Implemented {
			t.Errorf("%s occurs %d times and is not implemented", c.Name, c.N)
		}
	}
	if len(counts) < 300 {
		t.Errorf("only %d opcodes", len(counts))
	}
}
