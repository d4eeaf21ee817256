//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// An emulatedModel is a tiny model and how llama-server runs it on the card.
type emulatedModel struct {
	weights gguf.TensorType
	target  string
	flash   bool
	cache   string // type of keys and values
	slots   int
}

func (m emulatedModel) String() string {
	return fmt.Sprintf("%s/%s/flash=%v/cache=%s/slots=%d", m.target, m.weights, m.flash, m.cache, m.slots)
}

// Kernels of the products of quantised matrices, with the number of the type in their names.
const (
	vectorKernel = "mul_mat_vec_qIL9ggml_type%dE"
	matrixKernel = "mul_mat_qIL9ggml_type%dE"
	flashKernel  = "flash_attn"
)

func productKernels(typ gguf.TensorType) []string {
	return []string{fmt.Sprintf(vectorKernel, typ), fmt.Sprintf(matrixKernel, typ)}
}

// emulatedModels returns models in which two families of types, both targets, both kinds of attention, a quantised cache
// and two slots occur: two in CI, and four in `mage test`. With GOROCM_EMULATE=all there is each combination.
// TestEmulatedModelsNoticeWrongKernels has a model in Q8_0.
func emulatedModels() []emulatedModel {
	if os.Getenv("GOROCM_EMULATE") != "all" {
		few := []emulatedModel{
			{gguf.Q4_0, "gfx1100", true, "q8_0", 1},
			{gguf.Q4_K, "gfx1101", false, "f16", 2},
		}
		return cases.Of(few, few, []emulatedModel{
			{gguf.Q4_0, "gfx1100", true, "q8_0", 1},
			{gguf.Q8_0, "gfx1101", false, "f16", 1},
			{gguf.Q4_K, "gfx1101", true, "f16", 1},
			{gguf.Q6_K, "gfx1100", false, "f16", 2},
		})
	}
	var out []emulatedModel
	for _, target := range []string{"gfx1100", "gfx1101"} {
		for _, typ := range append([]gguf.TensorType{gguf.F32, gguf.F16}, ggufgen.QuantisedTypes()...) {
			out = append(out,
				emulatedModel{typ, target, false, "f16", 1}, emulatedModel{typ, target, true, "f16", 2},
				emulatedModel{typ, target, true, "q8_0", 1}, emulatedModel{typ, target, true, "q4_0", 1})
		}
	}
	return out
}

// upstreamError is the error that llama.cpp's test-backend-ops allows for one product of matrices and for one flash
// attention (max_nmse_err of test_mul_mat and test_flash_attn_ext): the mean square of the differences, divided by the
// mean square of the numbers.
const upstreamError = 5e-4

// allowedError stands between the models with right kernels and those with wrong ones, whose logits err by six of
// upstream's products at most and by thirteen at least. The former is what the matrix kernels leave of types with a minimum:
// they multiply it by the sum of the activations before those are rounded.
const allowedError = 10 * upstreamError

// allowed returns allowedError, or more for a cache of four bits: keys that hardly differ may be rounded to different
// sixteenths of their range.
func (m emulatedModel) allowed() float64 {
	if m.cache == "q4_0" {
		return 2 * allowedError
	}
	return allowedError
}

// calmNorm keeps a model with random weights from amplifying what is rounded. With norms of one, the scores of attention
// have a standard deviation of three to eight, by the type of the weights, and a score that is rounded changes its weight
// by much more than the score; and a state of 0.1 is followed by a feed-forward part of 3, so that a layer leaves nothing of
// what was exact.
const calmNorm = 0.25

// logitError returns the normalised mean squared error of the logits of a card. Logarithmic probabilities are logits
// less a number that is the same for all tokens, which does not count.
func logitError(cpu, card []probability) (float64, error) {
	if len(cpu) != len(card) || len(cpu) == 0 {
		return 0, fmt.Errorf("%d and %d probabilities", len(cpu), len(card))
	}
	numbers := func(from []probability) ([]float64, error) {
		out, sum := make([]float64, len(from)), 0.0
		for n := range out {
			out[n] = math.NaN()
		}
		for _, p := range from {
			if p.ID < 0 || int(p.ID) >= len(out) || !math.IsNaN(out[p.ID]) {
				return nil, fmt.Errorf("token %d is outside the vocabulary or there twice", p.ID)
			}
			out[p.ID] = p.LogProb
			sum += p.LogProb
		}
		for n := range out {
			out[n] -= sum / float64(len(out))
		}
		return out, nil
	}
	want, err := numbers(cpu)
	got, errGot := numbers(card)
	if err := errors.Join(err, errGot); err != nil {
		return 0, err
	}
	differences, squares := 0.0, 0.0
	for n := range want {
		differences += (got[n] - want[n]) * (got[n] - want[n])
		squares += want[n] * want[n]
	}
	return differences / squares, nil
}

// emulatedPrompts are prompts of 1, 8 and 33 tokens: they run the kernels for a vector, for the most vectors that are
// multiplied one by one, and for matrices.
func emulatedPrompts() [][]int32 {
	r := rand.New(rand.NewPCG(3, 4))
	var out [][]int32
	for _, n := range []int{1, 8, 33} {
		prompt := make([]int32, n)
		for i := range prompt {
			const ordinary = 1000 // tokens before this one are bytes and words with a meaning
			prompt[i] = ordinary + r.Int32N(30000-ordinary)
		}
		out = append(out, prompt)
	}
	return out
}

// Devices of llama-server. Beside a card, the CPU leaves prompts of 32 tokens and more to the card, even if no layer is there.
const (
	onCPU  = "none"
	onCard = "ROCm0"
)

// answers returns what follows each prompt. With two slots, the prompts are computed at the same time.
func (r *rig) answers(t *testing.T, m emulatedModel, path, device, report string, prompts ...[]int32) []emulatedAnswer {
	t.Helper()
	flash := "off"
	if m.flash {
		flash = "on"
	}
	s := r.serve(t, path, report, "--device", device, "-c", fmt.Sprint(256*m.slots), "-np", fmt.Sprint(m.slots), "-fa", flash, "-ctk", m.cache, "-ctv", m.cache)
	defer s.close()
	const all = 1 << 20
	tokens := cases.Of(2, 2, 3)
	out, errs := make([]emulatedAnswer, len(prompts)), make([]error, len(prompts))
	free := make(chan bool, m.slots)
	var wg sync.WaitGroup
	for n, prompt := range prompts {
		wg.Go(func() {
			free <- true
			out[n], errs[n] = s.complete(t, prompt, tokens, all)
			<-free
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for n, a := range out {
		if len(a.Tokens) != tokens || len(a.Probabilities) != tokens {
			t.Fatalf("after prompt %d there are %d tokens and %d probabilities", n, len(a.Tokens), len(a.Probabilities))
		}
	}
	return out
}

// write writes the tiny model to a directory and returns its path. A dequantised one has the same weights in F32.
func (m emulatedModel) write(t *testing.T, dequantised bool) string {
	t.Helper()
	path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: m.weights, Dequantised: dequantised, Norm: calmNorm})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// compareAnswers returns the largest error of the logits of a card, and how many tokens are the CPU's. After the first
// token of an answer that differs, what follows has another context and does not count.
func compareAnswers(t *testing.T, cpu, card []emulatedAnswer) (worst float64, equal int) {
	t.Helper()
	for n := range cpu {
		for i := range cpu[n].Tokens {
			e, err := logitError(cpu[n].Probabilities[i].Top, card[n].Probabilities[i].Top)
			if err != nil {
				t.Fatalf("prompt %d, token %d: %v", n, i, err)
			}
			worst = max(worst, e) // NaN if either is
			if cpu[n].Tokens[i] != card[n].Tokens[i] {
				break
			}
			equal++
		}
	}
	return worst, equal
}

// TestEmulatedModels runs tiny quantised models with all layers on the card: prompts for each kind of kernel, attention
// with and without the fused kernel, a quantised cache, two slots. As long as the tokens are the CPU's, the logits of all
// tokens are as near to the CPU's as allowed says. The CPU has the same weights in F32, because it rounds the activations
// of quantised models by more than the card does. A token may only differ where the logits may.
func TestEmulatedModels(t *testing.T) {
	for _, m := range emulatedModels() {
		t.Run(m.String(), func(t *testing.T) {
			r, report := newRig(t, m.target), filepath.Join(t.TempDir(), "report")
			want := r.answers(t, m, m.write(t, true), onCPU, os.DevNull, emulatedPrompts()...)
			got := r.answers(t, m, m.write(t, false), onCard, report, emulatedPrompts()...)
			worst, equal := compareAnswers(t, want, got)
			if !(worst <= m.allowed()) {
				t.Errorf("the error of the logits is %.2g, and %.2g is allowed", worst, m.allowed())
			}
			t.Logf("%d of %d tokens equal, the largest error of the logits is %.2g", equal, len(want)*len(want[0].Tokens), worst)
			kernels := []string{}
			if slices.Contains(ggufgen.QuantisedTypes(), m.weights) {
				kernels = productKernels(m.weights)
			}
			if m.flash {
				kernels = append(kernels, flashKernel)
			}
			ranKernels(t, report, kernels...)
		})
	}
}
