package several

import (
	"context"
	"errors"
	"fmt"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// swap measures the time until a model answers that replaces another one: with each
// service, and with a plain llama-server that is stopped and started.
func (b *both) swap(ctx context.Context) (err error) {
	plain, stop, err := b.restarts(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	next := map[*service]string{}
	variants := []page.Variant{plain}
	for _, s := range b.services {
		next[s] = fileB
		variants = append(variants, swaps(s, func() string {
			file := next[s]
			next[s] = other(file)
			return file
		}))
	}
	for _, v := range variants { // both models have been read from the disk
		for range 2 {
			if _, err := v(ctx); err != nil {
				return fmt.Errorf("swap: %w", err)
			}
		}
	}
	measured, err := page.Interleave(ctx, 2*b.in.Rounds, variants...)
	if err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	for _, s := range b.services { // the last model alone is loaded
		if _, err := s.child(next[s]); err == nil {
			return fmt.Errorf("%s has two models loaded, so that nothing was replaced", s.name)
		}
	}
	var samples [][]float64
	for _, one := range measured[1:] {
		samples = append(samples, one, measured[0])
	}
	ours := b.report("seconds to swap two models, "+b.in.RealName+"; in the column of the child a plain llama-server, stopped and started", samples, ratios())
	if len(b.services) > 1 {
		ratio, _ := ratios().of(samples[0], samples[2])
		b.goal(page.Goal{What: "a swap of two models, of the time of " + b.services[1].name + ":", Got: ratio, Limit: 1})
	}
	b.goal(page.Goal{What: "a swap of two models, of the time of a plain llama-server, stopped and started:", Got: ours, Limit: 1})
	return nil
}

// other returns the other one of the two usable models.
func other(file string) string { return map[string]string{fileA: fileB, fileB: fileA}[file] }

// swaps returns a variant that asks a service for one token of the next model.
func swaps(s *service, next func() string) page.Variant {
	clients := map[string]*client{fileA: s.through(fileA), fileB: s.through(fileB)}
	return func(ctx context.Context) (float64, error) {
		c := clients[next()]
		begin := time.Now()
		_, err := c.stream(ctx, 1)
		return time.Since(begin).Seconds(), err
	}
}

// restarts returns a variant that stops a plain llama-server, and starts one with the
// other model.
func (b *both) restarts(ctx context.Context) (swap page.Variant, stop func() error, err error) {
	file := fileA
	s, err := b.in.startPlain(ctx, b.child, file)
	if err != nil {
		return nil, nil, err
	}
	swap = func(ctx context.Context) (float64, error) {
		begin := time.Now()
		if err := s.stop(); err != nil {
			return 0, err
		}
		file = other(file)
		next, err := b.in.startPlain(ctx, b.child, file)
		if err != nil {
			return 0, err
		}
		s = next
		_, err = s.through(file).stream(ctx, 1)
		return time.Since(begin).Seconds(), err
	}
	return swap, func() error { return s.stop() }, nil
}
