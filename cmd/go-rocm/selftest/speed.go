package selftest

import (
	"context"
	"errors"
	"fmt"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/modelbench"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// The short form of a measurement.
const (
	speedPrompt = 256
	speedAnswer = 32
	speedRounds = 2
)

// speed measures the backend with its default settings.
func (s *session) speed(ctx context.Context) Result {
	options := s.settings(s.backend).Options
	cases, _, skipped := modelbench.Cases(s.machine, s.path, s.header, options, true)
	if len(cases) == 0 {
		return unusable(errors.Join(skipped[s.backend], errors.New("no plan")))
	}
	runs, err := modelbench.Run(ctx, modelbench.Options{
		Path: s.path, Settings: s.settings(s.backend), Depths: []int{0}, Prompt: speedPrompt, Answer: speedAnswer, Rounds: speedRounds,
		Progress: func(float64, speed.Settings) {}, Memory: s.o.Memory,
	}, cases)
	switch {
	case errors.Is(err, errStep):
		return notPossible("repeat the test with a smaller model", "not measured: it took too long")
	case errors.Is(err, modelbench.ErrMemory):
		return notPossible("close other programs, or use a smaller model", "not measured: %v", err)
	case err == nil && runs[0].Error != "":
		err = errors.New(runs[0].Error)
	}
	if err != nil {
		return failed(remedyDoctor, "%s", firstLine(err.Error()))
	}
	d := runs[0].Depths[0]
	res := passed("reads %s and generates %s tokens per second", formatSample(d.Prompt), formatSample(d.Generation))
	res.Speed = &d
	return res
}

func formatSample(s speed.Sample) string { return fmt.Sprintf("%.1f ± %.1f", s.Mean, s.Deviation) }
