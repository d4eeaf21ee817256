//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// tinySlack is how much more than planned a tiny model may need on a card, in bytes: the plan is made for real ones.
const tinySlack = 5 << 20

// TestEmulatedCardRunsTheLibrary takes a model through the whole library on the second of two cards: the cards as the
// kernel's files describe them, the plan, the masks, llama-server with its memory, streams that end and that are left,
// and the end of the process.
func TestEmulatedCardRunsTheLibrary(t *testing.T) {
	r := newRig(t, "gfx1100,gfx1101")
	s := r.settings(t)
	s.Args = []string{"--log-verbosity", "4"} // for the sizes of the buffers
	path, report := tiny(t, "llama-spm", 1), fileOf(t, hsa.EnvReport)
	first, second := cardsOf(t, s)
	if second.UUID() != secondCard {
		t.Errorf("the second card is %s", second.UUID())
	}
	s.Devices.ID, s.Devices.Required = secondCard, true
	planned, err := rocm.Plan(path, s)
	if err != nil {
		t.Fatal(err)
	}
	checkSecondCard(t, planned)

	model, err := loadSettings(t, path, s)
	if err != nil {
		t.Fatal(err)
	}
	loaded := model.Server().CurrentPlan()
	checkSecondCard(t, loaded)
	if !slices.Equal(loaded.Env, planned.Env) || !slices.Equal(loaded.Args, planned.Args) {
		t.Errorf("planned %q with %q, and loaded %q with %q", planned.Args, planned.Env, loaded.Args, loaded.Env)
	}
	pid := model.Server().Child.Pid()
	checkChild(t, r, pid, loaded)
	checkMemory(t, model, "ROCm0", tinySlack)

	cpu := rocm.Settings{Bundle: s.Bundle, SysRoot: s.SysRoot}
	cpu.Options = plan.Options{Backend: plan.BackendCPU, Slots: 1, Context: s.Context}
	reference, err := loadSettings(t, path, cpu)
	if err != nil {
		t.Fatal(err)
	}
	want := greedy(t, reference, shortPrompt, 4)
	if got := streamed(t, model, 4); !slices.Equal(got, want) {
		t.Errorf("the card answers %v, and the CPU %v", got, want)
	}
	leaveStream(t, model)
	if got := streamed(t, model, 4); !slices.Equal(got, want) {
		t.Errorf("after a stream that was left, the card answers %v, and the CPU %v", got, want)
	}
	ranOnlyOn(t, report, second.Target.String())
	if first.Target == second.Target {
		t.Errorf("both cards are %s", first.Target)
	}

	if err := errors.Join(reference.Close(), model.Close()); err != nil {
		t.Error(err)
	}
	if !ended(pid) {
		t.Error("llama-server runs after its model was closed")
	}
	if left := usersOf(t, filepath.Join(r.Dir, "llama-server")); len(left) > 0 {
		t.Errorf("these processes run: %v", left)
	}
	for range model.Generate(t.Context(), shortPrompt, inference.WithMaxTokens(1)) {
		t.Error("a closed model answers")
	}
	if err := model.Err(); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("a closed model: %v", err)
	}
}

// cardsOf returns the two cards of the machine, and checks what the kernel's files say of them.
func cardsOf(t *testing.T, s rocm.Settings) (first, second gpu.Device) {
	t.Helper()
	m, err := rocm.DetectMachine(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Devices) != 2 {
		t.Fatalf("the machine has the devices %+v", m.Devices)
	}
	for n, want := range []gpu.Device{
		{Name: "AMD Radeon RX 7900 XTX", Target: "gfx1100", PCI: "0000:03:00.0", VRAMTotal: 25753026560},
		{Name: "AMD Radeon RX 7800 XT", Target: "gfx1101", PCI: "0000:0b:00.0", VRAMTotal: 17163091968},
	} {
		got := m.Devices[n]
		if got.Name != want.Name || got.Target != want.Target || got.PCI != want.PCI || got.VRAMTotal != want.VRAMTotal || !got.Visible || got.Index != n {
			t.Errorf("device %d is %+v, and not %+v", n, got, want)
		}
	}
	return m.Devices[0], m.Devices[1]
}

// checkSecondCard checks that a plan has all layers of the model on the second card, and hides the first one.
func checkSecondCard(t *testing.T, p *plan.Plan) {
	t.Helper()
	if p.Backend != plan.BackendHIP || p.Target != "gfx1101" || len(p.Chosen) != 1 || p.Chosen[0].UUID() != secondCard {
		t.Fatalf("the plan has %s for %s on %v", p.Backend, p.Target, p.Chosen)
	}
	if !p.Fits || p.Layers != p.TotalLayers || len(p.Devices) != 1 || p.Devices[0].Place != "0000:0b:00.0" || p.Devices[0].Weights == 0 {
		t.Errorf("the plan has %d of %d layers, and needs %+v", p.Layers, p.TotalLayers, p.Devices)
	}
	for _, mask := range []string{gpu.EnvROCR + "=" + secondCard, gpu.EnvHIP + "=0", gpu.EnvVulkan + "="} {
		if !slices.Contains(p.Env, mask) {
			t.Errorf("the plan's environment has no %s: %q", mask, p.Env)
		}
	}
	if at := slices.Index(p.Args, "--device"); at < 0 || p.Args[at+1] != "ROCm0" {
		t.Errorf("the plan's arguments are %q", p.Args)
	}
}

// checkChild checks that a process is the rig's llama-server with the arguments and the environment of a plan, and that it
// has loaded the HIP module and the emulated card.
func checkChild(t *testing.T, r *rig, pid int, p *plan.Plan) {
	t.Helper()
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	words := func(name string) []string { return strings.Split(string(bytes.TrimRight(read(name), "\x00")), "\x00") }
	environ, args := words("environ"), words("cmdline")
	for _, e := range p.Env {
		if !slices.Contains(environ, e) {
			t.Errorf("llama-server's environment has no %s: %q", e, environ)
		}
	}
	for _, a := range p.Args {
		if !slices.Contains(args, a) {
			t.Errorf("llama-server's arguments have no %s: %q", a, args)
		}
	}
	mapped := string(read("maps"))
	for _, name := range []string{hsa.Library, "libggml-hip.so", "llama-server"} {
		if !strings.Contains(mapped, filepath.Join(r.Dir, name)) {
			t.Errorf("llama-server has not loaded %s:\n%s", filepath.Join(r.Dir, name), mapped)
		}
	}
}

// streamed returns the tokens of a stream that is read to its end.
func streamed(t *testing.T, model *rocm.Model, limit int) (ids []int32) {
	t.Helper()
	s := model.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt(shortPrompt), GenerateConfig: inference.GenerateConfig{MaxTokens: limit}})
	for token := range s.All() {
		ids = append(ids, token.ID)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if f, m := s.Final(), s.Metrics(); s.FinishReason() != inference.FinishLength || f.PredictedTokens != limit || m.GeneratedTokens != limit || m.PromptTokens == 0 {
		t.Errorf("the stream ended with %s, %+v, %+v", s.FinishReason(), f, m)
	}
	return ids
}

// leaveStream leaves a stream after its second token, and waits until its slot is free.
func leaveStream(t *testing.T, model *rocm.Model) {
	t.Helper()
	read := 0
	s := model.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt(shortPrompt), GenerateConfig: inference.GenerateConfig{MaxTokens: 400}})
	for range s.All() {
		if read++; read == 2 {
			break
		}
	}
	if err := s.Err(); err != nil || read != 2 || s.FinishReason() != inference.FinishCancelled {
		t.Errorf("%d tokens of a stream that was left, %s, %v", read, s.FinishReason(), err)
	}
	poll.Until(t, "a free slot", func() bool {
		slots, err := model.API().Slots(t.Context())
		return err == nil && len(slots) == 1 && !slices.ContainsFunc(slots, func(slot llamaapi.Slot) bool { return slot.Processing })
	})
}

// A timedModel is a model whose speed on the emulated card TestEmulatedCardAnswersAChat logs.
type timedModel struct {
	name   string
	path   func(t *testing.T) string
	answer string  // what a chat answers to question; empty for a random model
	tokens int     // of the answer
	slack  float64 // of checkMemory
}

// timedModels returns a tiny model for CI, or with GOROCM_EMULATE=all also SmolLM2.
func timedModels() []timedModel {
	random := func(typ gguf.TensorType) timedModel {
		return timedModel{"tiny " + typ.String(), func(t *testing.T) string {
			t.Helper()
			path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: typ})
			if err != nil {
				t.Fatal(err)
			}
			return path
		}, "", cases.Of(4, 4, 16), tinySlack}
	}
	out := []timedModel{random(gguf.Q4_K)}
	if os.Getenv("GOROCM_EMULATE") == "all" {
		out = append(out, timedModel{"SmolLM2", func(t *testing.T) string {
			t.Helper()
			return realModel(t, models.SmolLM2())
		}, answer, 16, 0})
	}
	return out
}

// slowCard is how long a start of llama-server, and a request without a token, may take on the emulated card: it computes
// on the processors, which other tests use too.
const slowCard = 20 * time.Minute

// TestEmulatedCardAnswersAChat asks models with all layers on the card. The trained one answers rightly. The log has the
// time for each token, and how many lane-instructions the kernels execute in a second.
func TestEmulatedCardAnswersAChat(t *testing.T) {
	for _, m := range timedModels() {
		t.Run(m.name, func(t *testing.T) {
			r := newRig(t, "gfx1100")
			s := r.settings(t)
			s.Timeouts.Start, s.Timeouts.Stall = slowCard, slowCard
			s.Args = []string{"--log-verbosity", "4"}
			report := fileOf(t, hsa.EnvReport)
			model, err := loadSettings(t, m.path(t), s)
			if err != nil {
				t.Fatal(err)
			}
			if p := model.Server().CurrentPlan(); p.Backend != plan.BackendHIP || p.Layers != p.TotalLayers {
				t.Fatalf("the plan has %s with %d of %d layers", p.Backend, p.Layers, p.TotalLayers)
			}
			checkMemory(t, model, "ROCm0", m.slack)
			text := shortChat(t, model, m.tokens)
			if !strings.Contains(text, m.answer) {
				t.Errorf("answered %q", text)
			}
			f := model.Metrics()
			if f.PromptTokens == 0 || f.GeneratedTokens == 0 {
				t.Errorf("the metrics are %+v", f)
			}
			t.Logf("%q: %d tokens of the prompt in %s, %d tokens in %s; %s", text, f.PromptTokens, f.PrefillDuration, f.GeneratedTokens, f.DecodeDuration, laneSpeed(t, report))
		})
	}
}

// laneSpeed returns how many lane-instructions were executed, and how many in a second of the dispatches.
func laneSpeed(t *testing.T, report string) string {
	t.Helper()
	lines, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var lanes, micros uint64
	for line := range strings.Lines(string(lines)) {
		var target, kernel string
		var groups, instructions, executed, took uint64
		if _, err := fmt.Sscan(line, &target, &kernel, &groups, &instructions, &executed, &took); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lanes, micros = lanes+executed, micros+took
	}
	if lanes == 0 || micros == 0 {
		t.Fatalf("the report has %d lane-instructions in %d µs", lanes, micros)
	}
	return fmt.Sprintf("%d million lane-instructions, %d million in a second of kernels", lanes/1e6, lanes/micros)
}
