package child

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// Level is the number of concurrent streams, of tokens of each, and of rounds.
type Level struct{ Streams, Tokens, Rounds int }

// transports are the connections to the child; tcp is the value of rocm.Settings.TCP.
var transports = []struct{ name, tcp string }{{"unix socket", ""}, {"TCP", "127.0.0.1:0"}}

// slotTokens is the context of a slot: the prompt and the longest stream.
const slotTokens = 256

// Point is the result of one level, in tokens per second.
type Point struct {
	Model, Transport string
	Streams          int
	Ours, Raw        float64
}

// Flow compares the tokens per second of concurrent streams with those of a raw reader.
func Flow(ctx context.Context, in Input, useful, small []Level) (page.Section, []Point, error) {
	s := page.Section{
		Name: "flow", Title: "Concurrent streams over one child",
		Text: []string{
			"Tokens per second of all streams together, prompt included: `Model.Stream` in the program, and a raw reader that reads the bytes of the same responses from the same server and does not parse them. " +
				"The child has a slot for each stream. Medians of the rounds, in alternating order; a ratio is the median of the ratios of the rounds, with its confidence interval of 95 %.",
			"Two responses of the same server differ by a few per cent. Therefore each round measures the raw reader twice, and the last column is its ratio to itself: the noise of the measurement.",
			fmt.Sprintf("Server and program share the processors of this machine, so the cost of a token in the program slows the server. The %s shows that at its worst: "+
				"its tokens cost the server next to nothing. The goals are about the model that is of use, %s.", in.Tiny.Name, in.Real.Name),
		},
		Head: []string{"model", "over", "streams", "rounds", "tokens per second", "raw reader", "ratio", "raw reader to itself"},
	}
	var points []Point
	for _, c := range []struct {
		model  Model
		levels []Level
		goal   bool
	}{{in.Real, useful, true}, {in.Tiny, small, false}} {
		for _, t := range transports {
			m, err := in.load(ctx, c.model, most(c.levels), slotTokens, t.tcp)
			if err != nil {
				return s, nil, err
			}
			for _, l := range c.levels {
				in.printf("%s over %s, %d streams of %d tokens", c.model.Name, t.name, l.Streams, l.Tokens)
				p, ratios, control, err := in.level(ctx, m, l)
				if err != nil {
					return s, nil, errors.Join(err, m.Close())
				}
				p.Model, p.Transport = c.model.Name, t.name
				points = append(points, p)
				s.Rows = append(s.Rows, []string{p.Model, t.name, fmt.Sprint(l.Streams), fmt.Sprint(l.Rounds), page.Figure(p.Ours), page.Figure(p.Raw), interval(ratios), interval(control)})
				if c.goal {
					s.Goals = append(s.Goals, page.Goal{What: fmt.Sprintf("%d streams over %s, tokens per second of the raw reader's:", l.Streams, t.name), Got: page.Median(ratios), Limit: 0.99, AtLeast: true})
				}
			}
			if err := m.Close(); err != nil {
				return s, nil, err
			}
		}
	}
	return s, points, nil
}

// interval formats a median with its confidence interval.
func interval(ratios []float64) string {
	low, high := page.ConfidenceInterval(ratios)
	return fmt.Sprintf("%s (%s to %s)", page.Ratio(page.Median(ratios)), page.Ratio(low), page.Ratio(high))
}

func most(levels []Level) int {
	n := 1
	for _, l := range levels {
		n = max(n, l.Streams)
	}
	return n
}

func (in *Input) level(ctx context.Context, m *rocm.Model, l Level) (p Point, ratios, control []float64, err error) {
	r, err := raw(ctx, m, l.Tokens)
	if err != nil {
		return p, nil, nil, err
	}
	defer r.close()
	speed := func(read func(context.Context) error) page.Variant {
		return func(ctx context.Context) (float64, error) {
			start := time.Now()
			err := runConcurrently(l.Streams, func() error { return read(ctx) })
			return float64(l.Streams*l.Tokens) / time.Since(start).Seconds(), err
		}
	}
	mine := speed(func(ctx context.Context) error { return ours(ctx, m, l.Tokens, nil) })
	peer := speed(func(ctx context.Context) error { return r.read(ctx, nil) })
	for _, warm := range []page.Variant{mine, peer} { // open connections, fill the server's buffers
		if _, err := warm(ctx); err != nil {
			return p, nil, nil, err
		}
	}
	samples, err := page.Interleave(ctx, l.Rounds, mine, peer, peer)
	if err != nil {
		return p, nil, nil, err
	}
	p = Point{Streams: l.Streams, Ours: page.Median(samples[0]), Raw: page.Median(samples[1])}
	ratios, control = page.Ratios(samples[0], samples[1]), page.Ratios(samples[2], samples[1])
	in.printf("ours %.1f, raw %.1f tokens per second, ratio %s, raw to itself %s", p.Ours, p.Raw, interval(ratios), interval(control))
	return p, ratios, control, nil
}

// runConcurrently calls f n times concurrently.
func runConcurrently(n int, f func() error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// FirstToken compares the time to the first token with the time to the first byte of a
// raw reader.
func FirstToken(ctx context.Context, in Input) (page.Section, error) {
	s := page.Section{
		Name: "first", Title: "Time to the first token",
		Text: []string{fmt.Sprintf("From the call to the first `Token`, and to the first byte of a raw reader, for a prompt of a few words with an empty cache. Model: %s. "+
			"Medians of %d rounds; the difference is the median of the differences of the rounds.", in.Real.Name, in.Rounds)},
		Head: []string{"over", "first token, ms", "first byte of a raw reader, ms", "difference, ms"},
	}
	for _, t := range transports {
		m, err := in.load(ctx, in.Real, 1, slotTokens, t.tcp)
		if err != nil {
			return s, err
		}
		if err := errors.Join(in.firstRow(ctx, &s, m, t.name), m.Close()); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (in *Input) firstRow(ctx context.Context, s *page.Section, m *rocm.Model, over string) error {
	const tokens = 2
	r, err := raw(ctx, m, tokens)
	if err != nil {
		return err
	}
	defer r.close()
	first := func(read func(context.Context, func()) error) page.Variant {
		return func(ctx context.Context) (float64, error) {
			var took time.Duration
			start := time.Now()
			err := read(ctx, func() { took = time.Since(start) })
			return ms(took), err
		}
	}
	mine := first(func(ctx context.Context, f func()) error { return ours(ctx, m, tokens, f) })
	peer := first(r.read)
	if _, err := page.Interleave(ctx, 2, mine, peer); err != nil { // connects
		return err
	}
	samples, err := page.Interleave(ctx, in.Rounds, mine, peer)
	if err != nil {
		return err
	}
	difference := page.Median(page.Differences(samples[0], samples[1]))
	in.printf("over %s: %.3f ms over a raw reader", over, difference)
	s.Rows = append(s.Rows, []string{over, page.Figure(page.Median(samples[0])), page.Figure(page.Median(samples[1])), page.Figure(difference)})
	s.Goals = append(s.Goals, page.Goal{What: "first token after a raw reader's first byte, " + over + ":", Got: difference, Limit: 1, Unit: "ms"})
	return nil
}
