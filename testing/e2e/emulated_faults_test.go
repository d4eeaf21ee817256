//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// machineOf is the machine of testing/sysroot with the same cards as the rig.
func (r *rig) machineOf(t *testing.T) string {
	t.Helper()
	cards := []string{}
	for card := range strings.SplitSeq(r.cards, ",") {
		target, _, _ := strings.Cut(card, ":")
		cards = append(cards, target)
	}
	name, ok := map[string]string{"gfx1100": "rx7900xtx", "gfx1101": "rx7800xt", "gfx1100,gfx1101": "two-cards"}[strings.Join(cards, ",")]
	if !ok {
		t.Fatalf("testing/sysroot has no machine with %s", r.cards)
	}
	return sysroot.Write(t, name, nil)
}

// asOwnBuild makes the rig a llama.cpp without a manifest, since it is not what the manifest says. A child inherits the
// variables of the emulated card as those of a user, with GOROCM_INHERIT_ENV.
func (r *rig) asOwnBuild(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(r.Dir, bundle.ManifestName)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(supervise.EnvInherit, strings.Join([]string{hsa.EnvCards, hsa.EnvCoverage, hsa.EnvReport, hsa.EnvReset}, ","))
	t.Setenv(hsa.EnvCards, r.cards)
}

// settings returns how the library runs the rig, on the machine with its cards.
func (r *rig) settings(t *testing.T) rocm.Settings {
	t.Helper()
	r.asOwnBuild(t)
	var s rocm.Settings
	s.Bundle, s.SysRoot = r.Dir, r.machineOf(t)
	s.Backend, s.Context, s.Slots = plan.BackendHIP, 512, 1
	return s
}

// loadSettings loads a model, which is closed with the test.
func loadSettings(t *testing.T, path string, s rocm.Settings) (*rocm.Model, error) {
	t.Helper()
	model, err := new(rocm.Backend).Load(t.Context(), path, s)
	if err == nil {
		t.Cleanup(func() {
			if err := model.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
	return model, err
}

// faultyWeights is the type of the models of these tests.
const faultyWeights = gguf.Q8_0

func faultyModel(t *testing.T) string {
	t.Helper()
	path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: faultyWeights})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// damage replaces the beginning of the kernels that multiply matrices of the type. They run for prompts of more than
// eight tokens only, so that llama-server starts, and answers short prompts.
func (r *rig) damage(t *testing.T, words ...uint32) {
	t.Helper()
	n, err := survey.Patch(r.alone(t, "libggml-hip.so"), gfx.Target(r.cards), kernelMatrix, func(_ survey.CodeObject, k survey.Kernel) (int64, []uint32, error) {
		return k.Offset, words, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatalf("libggml-hip has no kernel %s", kernelMatrix)
	}
}

const kernelMatrix = "_ZL9mul_mat_qIL9ggml_type8E"

const (
	shortPrompt = "The quick brown fox"
	longPrompt  = "The quick brown fox jumps over the lazy dog, and then it sleeps until the morning."
)

// answerLength returns how many tokens follow a prompt.
func answerLength(t *testing.T, model *rocm.Model, prompt string) (n int, err error) {
	t.Helper()
	for range model.Generate(t.Context(), prompt, inference.WithMaxTokens(2)) {
		n++
	}
	return n, model.Err()
}

// TestEmulatedCardFaults damages a kernel of libggml-hip and asks the model, through the library: the request that
// runs the kernel fails with the cause and the remedy, and llama-server starts again and answers the next one.
func TestEmulatedCardFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		words []uint32
		reset string
		want  error
		texts []string
		all   bool // only with GOROCM_EMULATE=all
	}{
		// global_load_b32 v0, v[0:1], off: an address of the host's first page
		{"memory fault", []uint32{0xdc520000, 0x007c0000}, "", supervise.ErrGPUFault, []string{"Memory access fault by GPU node-1", "try without flash attention"}, false},
		{"illegal instruction", []uint32{0xffffffff}, "", supervise.ErrGPUIllegalInstruction, []string{"HSA_STATUS_ERROR_ILLEGAL_INSTRUCTION", "go-rocm verify"}, false},
		// s_branch to itself
		{"hang and reset", []uint32{0xbfa0ffff}, "5s", supervise.ErrGPUHang, []string{"HW Exception by GPU node-1", "the GPU was reset"}, true},
		{"hang", []uint32{0xbfa0ffff}, "", supervise.ErrStalled, []string{"the process was killed to free the GPU"}, true},
	} {
		if c.all && os.Getenv("GOROCM_EMULATE") != "all" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "gfx1100")
			r.damage(t, c.words...)
			t.Setenv(hsa.EnvReset, c.reset)
			s := r.settings(t)
			s.Timeouts.Stall = 10 * time.Second
			s.Restart.MinBackoff = 10 * time.Millisecond
			model, err := loadSettings(t, faultyModel(t), s)
			if err != nil {
				t.Fatal(err)
			}
			p := model.Server().Plan
			if p.Backend != plan.BackendHIP || p.Layers != p.TotalLayers || len(p.Chosen) != 1 || p.Chosen[0].Target != "gfx1100" {
				t.Fatalf("the plan has %s with %d of %d layers on %v", p.Backend, p.Layers, p.TotalLayers, p.Chosen)
			}
			pid := model.Server().Child.Pid()
			n, err := answerLength(t, model, longPrompt)
			if !errors.Is(err, c.want) {
				t.Errorf("%d tokens, %v; want %v", n, err, c.want)
			}
			for _, text := range c.texts {
				if err != nil && !strings.Contains(err.Error(), text) {
					t.Errorf("the error has no %q: %v", text, err)
				}
			}
			if n, err := answerLength(t, model, shortPrompt); err != nil || n != 2 {
				t.Errorf("after the fault there are %d tokens, %v", n, err)
			}
			if model.Server().Child.Pid() == pid {
				t.Error("the process that failed runs")
			}
		})
	}
}

// TestEmulatedCardMemoryExhausted loads a model on a card that has less memory than the kernel says. Where the settings
// fix what needs memory, that is an error with a remedy; otherwise llama-server chooses a context that fits.
func TestEmulatedCardMemoryExhausted(t *testing.T) {
	const long = 1 << 20 // tokens: a cache of 1 GiB, and a mask of the same size
	path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: faultyWeights, Context: long})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "gfx1100:512")
	s := r.settings(t)
	s.Context, s.Layers, s.Cache.KeyType, s.Cache.ValueType = long, plan.AllLayers, "f16", "f16"
	_, err = loadSettings(t, path, s)
	if !errors.Is(err, supervise.ErrOutOfMemory) || errors.Is(err, supervise.ErrHostMemory) || !strings.Contains(err.Error(), "use a smaller context") {
		t.Errorf("with a fixed context: %v", err)
	}
	s.Options = plan.Options{Backend: plan.BackendHIP, Slots: 1}
	model, err := loadSettings(t, path, s)
	if err != nil {
		t.Fatal(err)
	}
	p := model.Server().Plan
	if !p.GPU || p.Layers != p.TotalLayers {
		t.Errorf("the plan has %d of %d layers and %d tokens: %q", p.Layers, p.TotalLayers, p.Context, p.Reasons)
	}
	if props, err := model.API().Props(t.Context()); err != nil || props.Defaults.ContextLen <= 0 || props.Defaults.ContextLen >= long {
		t.Errorf("llama-server has a context of %+v, %v", props, err)
	} else {
		t.Logf("llama-server has a context of %d tokens", props.Defaults.ContextLen)
	}
	if n, err := answerLength(t, model, shortPrompt); err != nil || n != 2 {
		t.Errorf("there are %d tokens, %v", n, err)
	}
}

// ranOnlyOn checks that kernels ran on the card of a target, and on no other.
func ranOnlyOn(t *testing.T, report, target string) {
	t.Helper()
	lines, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(lines)) {
		if !strings.HasPrefix(line, target+" ") {
			t.Errorf("a kernel ran elsewhere: %s", line)
		}
		n++
	}
	if n == 0 {
		t.Errorf("no kernel ran on %s", target)
	}
}
