package selftest

import (
	"context"
	"log/slog"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// testContext is the number of tokens of the context: the longest prompt and its answer
// need less.
const testContext = 2048

// session is a backend with a loaded model.
type session struct {
	*runner
	backend plan.Backend
	plan    *plan.Plan
	model   *rocm.Model // nil while it is not loaded
	before  map[string]uint64
}

func (r *runner) newSession(b plan.Backend, p *plan.Plan) *session {
	s := &session{runner: r, backend: b, plan: p}
	r.sessions = append(r.sessions, s)
	return s
}

// step returns a step of the session. The weights are rough: they matter for the
// estimate of the time that is left only.
func (s *session) step(name StepName) step {
	loaded := func(run func(context.Context) Result) func(context.Context) Result {
		return func(ctx context.Context) Result {
			if s.model == nil {
				return notPossible("see the result of the step load", "the model is not loaded")
			}
			return run(ctx)
		}
	}
	switch name {
	case StepLoad:
		return step{name, s.backend, 3 * time.Minute, 5 * time.Second, s.load}
	case StepMemory:
		return step{name, s.backend, 10 * time.Second, time.Second, loaded(s.memory)}
	case StepAnswers:
		return step{name, s.backend, 3 * time.Minute, 10 * time.Second, loaded(s.answers)}
	case StepCancel:
		return step{name, s.backend, time.Minute, time.Second, loaded(s.cancel)}
	case StepKill:
		return step{name, s.backend, 2 * time.Minute, 6 * time.Second, loaded(s.kill)}
	case StepUnload:
		return step{name, s.backend, time.Minute, 2 * time.Second, loaded(s.unload)}
	case StepSpeed:
		return step{name, s.backend, 2 * time.Minute, 20 * time.Second, s.speed}
	}
	return step{StepOperations, s.backend, MaxTime, time.Minute, s.operations}
}

const remedyDoctor = `"go-rocm doctor" checks the machine; attach this report to an issue if it finds nothing`

// load loads the model.
func (s *session) load(ctx context.Context) Result {
	s.before = s.usedMemory()
	settings := s.settings(s.backend)
	settings.Args = []string{"--log-verbosity", "4"} // for the sizes of the buffers
	if !s.log.Enabled(ctx, slog.LevelDebug) {
		settings.Log = nil // the deliberate kill is no warning
	}
	settings.Timeouts.Drain, settings.Restart.Disabled = -1, false
	var err error
	if s.model, err = new(rocm.Backend).Load(ctx, s.path, settings); err != nil {
		s.model = nil
		return failed(remedyDoctor, "%s", firstLine(err.Error()))
	}
	s.plan = s.model.Server().CurrentPlan()
	if !s.plan.GPU {
		return passed("on the CPU")
	}
	return passed("%d of %d layers on %s", s.plan.Layers, s.plan.TotalLayers, s.plan.Chosen[0].Name)
}

// close ends the session, if the test ended before it did.
func (s *session) close() {
	if s.model != nil {
		_ = s.model.Close()
		s.model = nil
	}
}

// usedMemory returns the used memory of each card, by PCI address.
func (s *session) usedMemory() map[string]uint64 {
	out := map[string]uint64{}
	for _, d := range s.machine.Devices {
		if sample := s.fs.Sample(d); d.MemoryKnown && sample.Err == nil {
			out[d.PCI] = sample.VRAMUsed
		}
	}
	return out
}

// prompt returns a prompt of a few tokens.
func (s *session) prompt(ctx context.Context) ([]int32, error) {
	tokens, err := s.model.API().Tokenize(ctx, text, llamaapi.TokenizeOptions{AddSpecial: true})
	return tokens[:min(len(tokens), 8)], err
}

// complete returns the greedy answer of some length to a prompt.
func (s *session) complete(ctx context.Context, prompt []int32, length int) (llamaapi.Completion, error) {
	no, temperature := false, float32(0)
	out, err := s.model.API().Complete(ctx, &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Tokens: prompt}}, MaxTokens: &length, Temperature: &temperature, CachePrompt: &no, Probs: candidates,
		Extra: map[string]any{"ignore_eos": true},
	})
	if err != nil {
		return llamaapi.Completion{}, err
	}
	return out[0], nil
}
