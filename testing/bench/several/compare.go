package several

import (
	"context"
	"errors"
	"fmt"
	"strings"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// both are the service and its peer, if there is one.
type both struct {
	in       *Input
	services []*service
	child    *child // of ours
	section  *page.Section
}

// row adds a row; cells that are missing at its end are empty.
func (b *both) row(cells ...string) {
	b.in.printf("%s", strings.Join(cells, ", "))
	for len(cells) < len(b.section.Head) {
		cells = append(cells, "")
	}
	b.section.Rows = append(b.section.Rows, cells)
}

// once adds a row of a single measurement of each service, which has no counterpart at its
// child. values are those of the services, texts where a service has none.
func (b *both) once(what string, values []float64, texts map[int]string) {
	cells := []string{what, "1"}
	for i, v := range values {
		text, ok := texts[i]
		if !ok {
			text = page.Figure(v)
		}
		cells = append(cells, text, "", "")
	}
	if len(values) > 1 && len(texts) == 0 && values[1] > 0 {
		cells = append(cells, page.Ratio(values[0]/values[1]))
	}
	b.row(cells...)
}

func (b *both) goal(g page.Goal) { b.section.Goals = append(b.section.Goals, g) }

// clients returns the ways to a model: through each service, and to a llama-server
// without it. The caller calls stop.
func (b *both) clients(ctx context.Context, file string) (all []*client, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	for _, s := range b.services {
		through := s.through(file)
		stops = append(stops, through.close)
		if _, err := through.stream(ctx, 2); err != nil { // it loads the model
			return nil, nil, fmt.Errorf("%s: %w", s.name, err)
		}
		direct, err := b.in.direct(ctx, s, file)
		if err != nil {
			return nil, nil, err
		}
		stops = append(stops, direct.close)
		if _, err := direct.stream(ctx, 2); err != nil {
			return nil, nil, fmt.Errorf("the child of %s: %w", s.name, err)
		}
		all = append(all, through, direct)
	}
	return all, stop, nil
}

// comparison is how samples are compared, and how the result is printed.
type comparison struct {
	each   func(ours, peer []float64) []float64 // of each round
	format func(float64) string
}

// ratios compare by ratios, differences by differences in milliseconds.
func ratios() comparison { return comparison{page.Ratios, page.Ratio} }

func differences() comparison {
	return comparison{page.Differences, func(v float64) string { return fmt.Sprintf("%+.3f", v) }}
}

// of returns the median of the rounds, and a text with its confidence interval.
func (c comparison) of(ours, peer []float64) (median float64, text string) {
	each := c.each(ours, peer)
	low, high := page.ConfidenceInterval(each)
	median = page.Median(each)
	return median, fmt.Sprintf("%s (%s to %s)", c.format(median), c.format(low), c.format(high))
}

// report adds a row of samples: those of each service, and after each those of what it is
// compared with. It returns the result of the first service.
func (b *both) report(what string, samples [][]float64, by comparison) (ours float64) {
	cells := []string{what, fmt.Sprint(len(samples[0]))}
	for i := 0; i < len(samples); i += 2 {
		median, text := by.of(samples[i], samples[i+1])
		cells = append(cells, page.Figure(page.Median(samples[i])), page.Figure(page.Median(samples[i+1])), text)
		if i == 0 {
			ours = median
		}
	}
	if len(samples) > 2 {
		_, text := by.of(samples[0], samples[2])
		cells = append(cells, text)
	}
	b.row(cells...)
	return ours
}

// measure measures the clients in turn, after each has been called once: it opens
// connections and fills buffers.
func measure(ctx context.Context, rounds int, clients []*client, of func(*client) page.Variant) ([][]float64, error) {
	var variants []page.Variant
	for _, c := range clients {
		variants = append(variants, of(c))
	}
	for _, warm := range variants {
		if _, err := warm(ctx); err != nil {
			return nil, err
		}
	}
	return page.Interleave(ctx, rounds, variants...)
}

// firstToken measures the time to the first token, and what a connection for each
// request costs.
func (b *both) firstToken(ctx context.Context) (err error) {
	clients, stop, err := b.clients(ctx, fileTiny)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	rounds := 5 * b.in.Rounds
	samples, err := measure(ctx, rounds, clients, (*client).firstToken)
	if err != nil {
		return err
	}
	difference := b.report("ms to the first token, "+b.in.TinyName, samples, differences())
	b.goal(page.Goal{What: "the gateway, to the first token:", Got: difference, Limit: 0.3, Unit: "ms"})
	// New connections against kept ones: through the services, and to the children.
	for first, what := range []string{
		"ms to the first token, with a new connection for each request of the client, and with a kept one in the column of the child",
		"the same to the children, without the services",
	} {
		var fresh []*client
		for i := first; i < len(clients); i += 2 {
			fresh = append(fresh, clients[i].fresh(), clients[i])
		}
		if samples, err = measure(ctx, rounds, fresh, (*client).firstToken); err != nil {
			return err
		}
		b.report(what, samples, differences())
	}
	return nil
}

// speeds measures the tokens per second of concurrent streams, and their time to the
// first token.
func (b *both) speeds(ctx context.Context) error {
	for _, c := range []struct {
		file, name string
		levels     []Level
		goal       bool
	}{{fileTiny, b.in.TinyName, b.in.TinyLevels, false}, {fileA, b.in.RealName, b.in.Levels, true}} {
		if err := b.speedsOf(ctx, c.file, c.name, c.levels, c.goal); err != nil {
			return err
		}
	}
	return nil
}

// speedsOf measures them of one model.
func (b *both) speedsOf(ctx context.Context, file, name string, levels []Level, goal bool) (err error) {
	clients, stop, err := b.clients(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, l := range levels {
		var firsts []*[]float64 // of each client
		samples, err := measure(ctx, l.Rounds, clients, func(c *client) page.Variant {
			first := new([]float64)
			firsts = append(firsts, first)
			return func(ctx context.Context) (float64, error) {
				speed, median, err := c.streams(ctx, l.Streams, l.Tokens)
				*first = append(*first, median)
				return speed, err
			}
		})
		if err != nil {
			return err
		}
		ratio := b.report(fmt.Sprintf("tokens per second, %d streams of %d, %s", l.Streams, l.Tokens, name), samples, ratios())
		if goal {
			b.goal(page.Goal{What: fmt.Sprintf("the gateway, tokens per second of %d streams, of the child's:", l.Streams), Got: ratio, Limit: 0.99, AtLeast: true})
		}
		for i, first := range firsts {
			samples[i] = (*first)[1:] // the first warmed it
		}
		b.report(fmt.Sprintf("ms to the first token of these %d streams, median", l.Streams), samples, differences())
	}
	return nil
}
