// Command streambench measures what a token costs in this project's client and
// in others, and writes a table (Markdown) and a plot (SVG).
//
//	go run ./cmd/streambench -rounds 9 -table table.md -plot plot.svg
//
// All cases take turns, round after round, so that a machine that is busy for a
// while is busy for all; the median of the rounds is reported.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/bench"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "streambench:", err)
		os.Exit(1)
	}
}

// row is what one case costs a token.
type row struct {
	name          string
	peer          bool
	ns, cpu       float64
	allocs, bytes float64
}

func run(argv []string, stdout io.Writer) (err error) {
	fs := flag.NewFlagSet("streambench", flag.ContinueOnError)
	tokens := fs.Int("tokens", 5000, "tokens in a stream")
	rounds := fs.Int("rounds", 9, "rounds; the median counts")
	streams := fs.Int("streams", 10, "streams that each case reads in a round")
	table := fs.String("table", "", "file for the table (default: standard output)")
	plot := fs.String("plot", "", "file for the plot")
	if err := fs.Parse(argv); err != nil {
		return err
	}
	if *tokens < 1 || *rounds < 1 || *streams < 1 {
		return errors.New("tokens, rounds and streams must be at least 1")
	}
	s, err := bench.NewServer(*tokens)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	rows, err := measure(s, *tokens, *rounds, *streams)
	if err != nil {
		return err
	}
	text := markdown(rows, *tokens, *rounds)
	if *table == "" {
		_, err = io.WriteString(stdout, text)
	} else {
		err = os.WriteFile(*table, []byte(text), 0o600)
	}
	if err == nil && *plot != "" {
		err = os.WriteFile(*plot, []byte(svg(rows)), 0o600)
	}
	return err
}

// measure reads streams in turn and takes the medians.
func measure(s *bench.Server, tokens, rounds, streams int) ([]row, error) {
	ctx := context.Background()
	cases := bench.Cases()
	reads := make([]bench.Read, len(cases))
	for i, c := range cases {
		reads[i] = c.Open(s)
		if err := reads[i](ctx, func(string) {}); err != nil { // connects
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	samples := make([][4][]float64, len(cases))
	for range rounds {
		for i, c := range cases {
			got, err := once(ctx, reads[i], streams, float64(tokens*streams))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			for k := range got {
				samples[i][k] = append(samples[i][k], got[k])
			}
		}
	}
	rows := make([]row, len(cases))
	for i, c := range cases {
		x := samples[i]
		rows[i] = row{c.Name, c.Peer, median(x[0]), median(x[1]), median(x[2]), median(x[3])}
	}
	return rows, nil
}

// once gives nanoseconds on the wall, nanoseconds of processor time, allocations
// and bytes a token.
func once(ctx context.Context, read bench.Read, streams int, tokens float64) (out [4]float64, err error) {
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

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func markdown(rows []row, tokens, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Streams of %d tokens over the loopback interface, medians of %d rounds, %s, %s/%s, %d CPUs.\n\n",
		tokens, rounds, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	b.WriteString("Processor time is that of the client and of the server that feeds it, which is the same for all.\n\n")
	b.WriteString("| | µs a token | processor µs a token | allocations a token | bytes a token |\n|---|---:|---:|---:|---:|\n")
	for _, r := range rows {
		name := r.name
		if !r.peer {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.1f | %.0f |\n", name, r.ns/1000, r.cpu/1000, r.allocs, r.bytes)
	}
	return b.String()
}
