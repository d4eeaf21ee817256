package several

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// CPU compares generation on the CPU with the plain llama-server: the same program and
// bundle, without the number of threads and the environment for OpenMP that go-rocm
// sets. A second row keeps every processor busy meanwhile, as a desktop or a build does.
func CPU(ctx context.Context, in Input) (s page.Section, err error) {
	s = page.Section{
		Name: page.CPU, Title: "Generation on the CPU",
		Text: []string{
			fmt.Sprintf("Tokens per second of one stream of %d tokens, %s, prompt included: llama-server with the arguments and the environment that `go-rocm serve` gives its child, and the plain llama-server with the same bundle and model, "+
				"to which neither `--threads` nor `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT` are given. Both are asked directly, over TCP and in turn. "+
				"Busy means that a program computes on each of the %d processors of this machine without end.", cpuTokens, in.RealName, runtime.NumCPU()),
			"OpenMP's threads spin at every barrier, so the plain server loses what it gives to other programs twice. llama.cpp's own thread pool (`GGML_OPENMP=OFF`) is another compile of the CPU modules, " +
				"which a bundle does not contain; it is not measured.",
		},
		Head: []string{"processors", "rounds", "go-rocm", "llama-server", "ratio"},
	}
	in.Levels, in.TinyLevels = []Level{{1, cpuTokens, in.Rounds}}, nil
	ours, c, err := in.start(ctx, fileA)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	plain, err := in.startPlain(ctx, c.untuned(), fileA)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	direct, err := in.direct(ctx, ours, fileA)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, direct.close()) }()
	peer := plain.through(fileA)
	variants := []page.Variant{direct.speed(1, cpuTokens), peer.speed(1, cpuTokens)}
	for _, warm := range variants {
		if _, err := warm(ctx); err != nil {
			return s, err
		}
	}
	for _, load := range []string{"quiet", "busy"} {
		stop := func() {}
		if load == "busy" {
			if stop, err = keepBusy(ctx); err != nil {
				return s, err
			}
		}
		samples, err := page.Interleave(ctx, in.Rounds, variants...)
		stop()
		if err != nil {
			return s, err
		}
		ratios := page.Ratios(samples[0], samples[1])
		low, high := page.ConfidenceInterval(ratios)
		row := []string{
			load, fmt.Sprint(in.Rounds), page.Figure(page.Median(samples[0])), page.Figure(page.Median(samples[1])),
			fmt.Sprintf("%s (%s to %s)", page.Ratio(page.Median(ratios)), page.Ratio(low), page.Ratio(high)),
		}
		in.printf("%s", strings.Join(row, ", "))
		s.Rows = append(s.Rows, row)
		s.Goals = append(s.Goals, page.Goal{What: load + ", tokens per second of the plain llama-server's:", Got: page.Median(ratios), Limit: 0.97, AtLeast: true})
	}
	return s, nil
}

// cpuTokens is the length of a stream.
const cpuTokens = 48

// untuned returns the process without what go-rocm sets for the CPU.
func (c *child) untuned() *child {
	out := &child{argv: withoutValues(c.argv, "--threads", "--threads-batch"), dir: c.dir}
	for _, e := range c.env {
		if !strings.HasPrefix(e, "OMP_") && !strings.HasPrefix(e, "GOMP_") && !strings.HasPrefix(e, "LLAMA_ARG_THREADS=") {
			out.env = append(out.env, e)
		}
	}
	return out
}

// keepBusy starts a program on each processor that computes until stop.
func keepBusy(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var busy []*exec.Cmd
	stop = func() {
		cancel()
		for _, cmd := range busy {
			_ = cmd.Wait() // killed
		}
	}
	for range runtime.NumCPU() {
		cmd := exec.CommandContext(ctx, "sh", "-c", `while kill -0 "$PPID"; do :; done`) // ends with this program
		if err := cmd.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("keep the processors busy: %w", err)
		}
		busy = append(busy, cmd)
	}
	return stop, nil
}
