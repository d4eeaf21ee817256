package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// Row is the cost per token of one case.
type Row struct {
	Name string
	Peer bool
	// Wall-clock and processor time in nanoseconds, allocations and bytes, per token.
	Wall, CPU, Allocs, Bytes float64
}

// TokensOptions are the number of tokens of a stream, of streams in a round, and of
// rounds.
type TokensOptions struct {
	Tokens, Streams, Rounds int
	Log                     io.Writer
}

// PlotName is the file name of the picture in the section of Tokens.
const PlotName = "benchmarks-tokens.svg"

// Tokens measures the cost of a token in each case and draws a plot.
func Tokens(ctx context.Context, o TokensOptions) (s page.Section, plot string, err error) {
	server, err := NewServer(o.Tokens)
	if err != nil {
		return s, "", err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rows, err := measure(ctx, server, o)
	if err != nil {
		return s, "", err
	}
	s = page.Section{
		Name: "tokens", Title: "The cost of a token from socket to program",
		Text: []string{
			fmt.Sprintf("Streams of %d events, each in a chunk of its own as llama-server writes them, from a server on the loopback interface in the same process that has the whole response in memory. Medians of %d rounds of %d streams, all cases in turn.",
				o.Tokens, o.Rounds, o.Streams),
			"Processor time is that of the client and of the server, which is the same for all. Clients of the OpenAI protocol read the chunks of `/v1/chat/completions`, the others those of `/completion`.",
		},
		Head: []string{"", "µs per token", "processor µs per token", "allocations per token", "bytes per token"},
		Plot: PlotName, PlotText: "bars of the µs per token, on a logarithmic scale",
	}
	for _, r := range rows {
		name := r.Name
		if !r.Peer {
			name = "**" + name + "**"
			s.Goals = append(s.Goals,
				page.Goal{What: r.Name + ", per token:", Got: r.Wall / 1000, Limit: 0.5, Unit: "µs"},
				page.Goal{What: r.Name + ", per token:", Got: r.Allocs, Limit: 1, Unit: "allocations"})
		}
		s.Rows = append(s.Rows, []string{name, fmt.Sprintf("%.2f", r.Wall/1000), fmt.Sprintf("%.2f", r.CPU/1000), fmt.Sprintf("%.1f", r.Allocs), fmt.Sprintf("%.0f", r.Bytes)})
	}
	return s, svg(rows), nil
}

// measure reads streams in turn and returns the medians.
func measure(ctx context.Context, s *Server, o TokensOptions) ([]Row, error) {
	cases := Cases()
	reads := make([]Read, len(cases))
	for i, c := range cases {
		reads[i] = c.Open(s)
		if err := reads[i](ctx, func(string) {}); err != nil { // connects
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	samples := make([][4][]float64, len(cases))
	for round := range o.Rounds {
		if _, err := fmt.Fprintf(o.Log, "  round %d of %d\n", round+1, o.Rounds); err != nil {
			return nil, err
		}
		for i, c := range cases {
			got, err := sample(ctx, reads[i], o.Streams, float64(o.Tokens*o.Streams))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			for k := range got {
				samples[i][k] = append(samples[i][k], got[k])
			}
		}
	}
	rows := make([]Row, len(cases))
	for i, c := range cases {
		x := samples[i]
		rows[i] = Row{c.Name, c.Peer, page.Median(x[0]), page.Median(x[1]), page.Median(x[2]), page.Median(x[3])}
	}
	return rows, nil
}

// sample returns wall-clock and processor time in nanoseconds, allocations and bytes, per
// token.
func sample(ctx context.Context, read Read, streams int, tokens float64) (out [4]float64, err error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	used, err := cpuTime()
	if err != nil {
		return out, err
	}
	start := time.Now()
	for range streams {
		if err := read(ctx, func(string) {}); err != nil {
			return out, err
		}
	}
	elapsed := time.Since(start)
	now, err := cpuTime()
	if err != nil {
		return out, err
	}
	runtime.ReadMemStats(&after)
	return [4]float64{
		float64(elapsed.Nanoseconds()) / tokens,
		float64((now - used).Nanoseconds()) / tokens,
		float64(after.Mallocs-before.Mallocs) / tokens,
		float64(after.TotalAlloc-before.TotalAlloc) / tokens,
	}, nil
}
