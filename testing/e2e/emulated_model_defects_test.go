//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// A kernelDefect changes some instructions in kernels of libggml-hip, so that they compute something else.
type kernelDefect struct {
	name   string
	kernel string // what the names of the kernels begin with
	change func(i survey.Instruction, words []uint32) bool
}

// Encodings of operands.
const (
	operandBits  = 0x1ff
	operandZero  = 128
	operandVGPR0 = 256
	minusTwo     = 245
	minusFour    = 247
	thirdOperand = 18 // its first bit in the second word of VOP3
	thirdNegated = 1 << 31
)

// withoutSum makes the instructions with a mnemonic add nothing to their product: what was added before is lost.
func withoutSum(mnemonic string) func(survey.Instruction, []uint32) bool {
	return func(i survey.Instruction, words []uint32) bool {
		if i.Mnemonic() != mnemonic || words[1]>>thirdOperand&operandBits < operandVGPR0 {
			return false
		}
		words[1] = words[1]&^(operandBits<<thirdOperand) | operandZero<<thirdOperand
		return true
	}
}

// otherLiteral replaces a constant that is the last word of an instruction.
func otherLiteral(from, to uint32) func(survey.Instruction, []uint32) bool {
	return func(_ survey.Instruction, words []uint32) bool {
		last := len(words) - 1
		if last == 0 || words[last] != from {
			return false
		}
		words[last] = to
		return true
	}
}

// halfOffset makes the products of Q4_0 subtract half of what they should.
func halfOffset(i survey.Instruction, words []uint32) bool {
	if i.Mnemonic() != "v_mul_f32_e32" || words[0]&operandBits != minusFour {
		return false
	}
	words[0] = words[0]&^operandBits | minusTwo
	return true
}

// addedMinimum makes the products of Q4_K add the minimum in place of subtracting it.
func addedMinimum(i survey.Instruction, words []uint32) bool {
	if i.Mnemonic() != "v_fma_mix_f32" || words[1]&thirdNegated == 0 {
		return false
	}
	words[1] &^= thirdNegated
	return true
}

// A wrongModel is a model with defects of the kernels that it runs for one token.
type wrongModel struct {
	emulatedModel
	defects []kernelDefect
}

// wrongModels returns a model for `mage test`, the defects of which change results the least, two of them in CI, or with
// GOROCM_EMULATE=all a model for each type of TestEmulatedModels.
func wrongModels() []wrongModel {
	vector := func(typ gguf.TensorType) string { return fmt.Sprintf("_ZL13"+vectorKernel+"Li1ELb0E", typ) }
	defects := []kernelDefect{
		{"twice log2(e) in attention", "_ZL18flash_attn_ext_vecILi64ELi1EL9ggml_type8ELS0_8ELb0E", otherLiteral(0x3fb8aa3b, 0x4038aa3b)},
		{"half of the sums", vector(gguf.Q8_0), withoutSum("v_dot4_i32_iu8")},
		{"activations in five bits", "_ZL13quantize_q8_1", otherLiteral(0x42fe0000, 0x41700000)}, // 15, and not 127
	}
	out := []wrongModel{{emulatedModel{gguf.Q8_0, "gfx1100", true, "q8_0", 1}, defects[:cases.Of(2, 2, len(defects))]}}
	if os.Getenv("GOROCM_EMULATE") != "all" {
		return out
	}
	return append(out,
		wrongModel{emulatedModel{gguf.Q4_0, "gfx1100", false, "f16", 1}, []kernelDefect{{"half of the offset", vector(gguf.Q4_0), halfOffset}}},
		wrongModel{emulatedModel{gguf.Q4_K, "gfx1100", false, "f16", 1}, []kernelDefect{{"minimum added", vector(gguf.Q4_K), addedMinimum}}},
		wrongModel{emulatedModel{gguf.Q6_K, "gfx1100", false, "f16", 1}, []kernelDefect{{"one of two scales", vector(gguf.Q6_K), withoutSum("v_fma_mix_f32")}}},
	)
}

// apply returns the instructions of a kernel with the defect, and where they are in the code object.
func (d kernelDefect) apply(c survey.CodeObject, k survey.Kernel) (int64, []uint32, error) {
	instructions, err := c.Instructions(k)
	if err != nil {
		return 0, nil, err
	}
	var words []uint32
	changed := 0
	for _, i := range instructions {
		of := make([]uint32, i.Size/4)
		for n := range of {
			of[n] = binary.LittleEndian.Uint32(c.Code[i.Offset+4*int64(n):])
		}
		if d.change(i, of) {
			changed++
		}
		words = append(words, of...)
	}
	if changed == 0 {
		return 0, nil, fmt.Errorf("%s has none of the instructions", k.Name)
	}
	return k.Offset, words, nil
}

// TestEmulatedModelsNoticeWrongKernels changes kernels of libggml-hip, one kind of instruction at a time, and checks
// that the logits of a model err by more than TestEmulatedModels allows, and without the change by less.
func TestEmulatedModelsNoticeWrongKernels(t *testing.T) {
	prompt := emulatedPrompts()[1]
	for _, m := range wrongModels() {
		t.Run(m.String(), func(t *testing.T) {
			path := m.write(t, false)
			healthy := newRig(t, m.target)
			want := healthy.answers(t, m.emulatedModel, m.write(t, true), onCPU, os.DevNull, prompt)
			right, equal := compareAnswers(t, want, healthy.answers(t, m.emulatedModel, path, onCard, os.DevNull, prompt))
			if !(right <= allowedError) {
				t.Errorf("no kernel is wrong, and the error of the logits is %.2g", right)
			}
			t.Logf("no kernel is wrong: error %.2g, %d tokens equal", right, equal)
			for _, d := range m.defects {
				r := newRig(t, m.target)
				n, err := survey.Patch(r.alone(t, "libggml-hip.so"), gfx.Target(m.target), d.kernel, d.apply)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					t.Fatalf("libggml-hip has no kernel %s", d.kernel)
				}
				wrong, equal := compareAnswers(t, want, r.answers(t, m.emulatedModel, path, onCard, os.DevNull, prompt))
				if !(wrong > allowedError) {
					t.Errorf("%s: the error of the logits is only %.2g, with %d tokens equal", d.name, wrong, equal)
				}
				t.Logf("%s: %d kernels are wrong, error %.2g, %d tokens equal", d.name, n, wrong, equal)
			}
		})
	}
}
