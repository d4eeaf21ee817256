// Command benchmarks measures the claims of the run side about speed and size against
// named peers and writes the results to docs/benchmarks.md.
//
//	go run ./cmd/benchmarks -cpu CPU.tar.zst -hip HIP.tar.zst -source LLAMA.CPP
//	go run ./cmd/benchmarks -only tokens
//	go run ./cmd/benchmarks -list
//
// `mage bench` builds the bundles, runs this command, and measures the build side. A
// goal that is not met is part of the results and not an error; a benchmark that cannot
// run is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/testing/bench/disk"
)

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == disk.Inner {
		return disk.Once(ctx, os.Stdout, args[1:])
	}
	if len(args) > 0 && args[0] == disk.InnerDownload {
		return disk.DownloadOnce(ctx, os.Stdout, args[1:])
	}
	return run(ctx, args, os.Stdout)
}

// options are the options of the command line.
type options struct {
	only, page, cpu, hip, source, router, work string
	rounds, jobs                               int
	list                                       bool
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	fs.StringVar(&o.only, "only", "", "comma-separated benchmarks to run (default: all that -list does not mark as extra)")
	fs.StringVar(&o.page, "page", filepath.Join("..", "..", "docs", "benchmarks.md"), "the page to update, which has the marks of the sections; pictures are written beside it")
	fs.StringVar(&o.cpu, "cpu", "", "packed cpu bundle")
	fs.StringVar(&o.hip, "hip", "", "packed hip bundle")
	fs.StringVar(&o.work, "work", "", "directory on the disk to measure (default: the user's cache directory)")
	fs.StringVar(&o.source, "source", "", "directory of the llama.cpp source, which has the tokenizer of the tiny model")
	fs.StringVar(&o.router, "router", "", "directory of the libraries that make the llama-server of the cpu bundle a router, the peer of "+page.Models+" (default: none, so that it has no router as its peer)")
	fs.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "threads for packing and unpacking")
	fs.IntVar(&o.rounds, "rounds", 0, "rounds of each benchmark (default: see -list)")
	fs.BoolVar(&o.list, "list", false, "list the benchmarks")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag; select benchmarks with -only", fs.Arg(0))
	}
	if o.rounds < 0 || o.jobs < 1 {
		return o, fmt.Errorf("%d rounds and %d jobs: there must be at least one", o.rounds, o.jobs)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		return list(out)
	}
	var names []string
	if o.only != "" {
		names = strings.Split(o.only, ",")
	}
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	b, err := prepare(o, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return b.all(ctx, chosen)
}

func list(out io.Writer) error {
	for _, one := range benchmarks() {
		extra := ""
		if one.extra {
			extra = "; extra"
		}
		if _, err := fmt.Fprintf(out, "%-10s %s (%d rounds%s)\n", one.name, one.what, one.rounds, extra); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the named benchmarks in the order of the table.
func choose(names []string) ([]benchmark, error) {
	var chosen []benchmark
	left := slices.Clone(names)
	for _, one := range benchmarks() {
		i := slices.Index(left, one.name)
		if i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
		if i >= 0 || len(names) == 0 && !one.extra {
			chosen = append(chosen, one)
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("%q is not a benchmark or is named twice; see -list", left[0])
	}
	return chosen, nil
}

// all runs benchmarks one after the other. A failed benchmark does not stop the others.
func (b *bench) all(ctx context.Context, chosen []benchmark) error {
	begin := time.Now()
	var failed []error
	for _, one := range chosen {
		if ctx.Err() != nil {
			return errors.Join(append(failed, ctx.Err())...)
		}
		if err := b.one(ctx, one); err != nil {
			err = fmt.Errorf("%s: %w", one.name, err)
			fmt.Fprintf(b.out, "%v\n", err)
			failed = append(failed, err)
		}
	}
	fmt.Fprintf(b.out, "%d benchmarks in %s\n", len(chosen), time.Since(begin).Round(time.Second))
	return errors.Join(failed...)
}

func (b *bench) one(ctx context.Context, one benchmark) error {
	rounds := one.rounds
	if b.options.rounds > 0 {
		rounds = b.options.rounds
	}
	if err := b.need(ctx, one.needs); err != nil {
		return err
	}
	on, err := page.ThisMachine("/proc")
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s: %s, %d rounds\n", one.name, one.what, rounds)
	begin := time.Now()
	s, err := one.run(ctx, b, rounds)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s: done in %s\n", one.name, time.Since(begin).Round(time.Second))
	if s.Name == "" {
		return nil // the output is the result
	}
	for _, g := range s.Goals {
		fmt.Fprintf(b.out, "  %s\n", g)
	}
	return page.Write(b.options.page, s, on)
}

// picture writes a plot to a file beside the page.
func (b *bench) picture(name, svg string) error {
	return os.WriteFile(filepath.Join(filepath.Dir(b.options.page), name), []byte(svg), 0o644)
}
