package child

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Choice compares a load whose backend is chosen with one whose backend is named, for each
// bundle.
func Choice(ctx context.Context, in Input, bundles ...string) (page.Section, error) {
	s := page.Section{
		Name: page.Choice, Title: "The choice of the backend",
		Text: []string{fmt.Sprintf("From the call of `Backend.Load` to a model that answers, with `auto` and with the backend that `auto` chose on this machine, by its name. "+
			"What Vulkan's drivers offer is known from an earlier start, as it is until a driver, the kernel or the bundle changes. The model is the %s. "+
			"Medians of %d rounds; the difference is the median of the differences of the rounds.", in.Tiny.Name, in.Rounds)},
		Head: []string{"bundle", "chosen", "auto, ms", "named, ms", "difference, ms"},
	}
	for _, b := range bundles {
		one := in
		one.Bundle = b
		if err := one.choiceRow(ctx, &s); err != nil {
			return s, fmt.Errorf("%s: %w", b, err)
		}
	}
	return s, nil
}

func (in *Input) choiceRow(ctx context.Context, s *page.Section) error {
	chosen, _, err := in.loadWith(ctx, plan.BackendAuto)
	if err != nil {
		return err
	}
	measure := func(backend plan.Backend) page.Variant {
		return func(ctx context.Context) (float64, error) {
			used, took, err := in.loadWith(ctx, backend)
			if err == nil && used != chosen {
				err = fmt.Errorf("%s chose %s after %s", backend, used, chosen)
			}
			in.printf("%s: %.1f ms", backend, ms(took))
			return ms(took), err
		}
	}
	samples, err := page.Interleave(ctx, in.Rounds, measure(plan.BackendAuto), measure(chosen))
	if err != nil {
		return err
	}
	name := filepath.Base(in.Bundle)
	difference := page.Median(page.Differences(samples[0], samples[1]))
	s.Rows = append(s.Rows, []string{"`" + name + "`", chosen.String(), page.Figure(page.Median(samples[0])), page.Figure(page.Median(samples[1])), page.Figure(difference)})
	s.Goals = append(s.Goals, page.Goal{What: name + ", auto over a named backend:", Got: difference, Limit: 1, Unit: "ms"})
	return nil
}

// loadWith loads the tiny model and returns the backend that computes, and how long it took.
func (in *Input) loadWith(ctx context.Context, backend plan.Backend) (used plan.Backend, took time.Duration, err error) {
	s := rocm.Settings{}
	s.Bundle, s.Slots, s.Context, s.Backend = in.Bundle, 1, 512, backend
	start := time.Now()
	m, err := (&rocm.Backend{}).Load(ctx, in.Tiny.Path, s)
	took = time.Since(start)
	if err != nil {
		return "", took, err
	}
	used = m.Server().Plan.Backend
	return used, took, m.Close()
}
