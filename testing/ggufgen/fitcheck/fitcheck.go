// Package fitcheck compares the memory that runtime/plan expects with what
// llama.cpp's llama-fit-params reports, over the shapes that ggufgen knows.
//
// It exists because an estimate is worth as much as its last comparison: the
// command in ../cmd/fitcheck makes the table against a real program, and the
// test of runtime/plan holds the estimate to a recorded one. It measures no
// real allocation on a GPU.
package fitcheck

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

const mib = 1 << 20

// Scenario is a way to run a model.
type Scenario struct {
	Name    string
	Args    []string // for llama-fit-params
	Options plan.Options
	Outputs int // tokens of a batch with logits; llama-fit-params computes them for all
}

// Scenarios are the ways that are compared.
func Scenarios() []Scenario {
	one := func(name string, outputs int, o plan.Options, args ...string) Scenario {
		o.Slots = max(o.Slots, 1)
		return Scenario{Name: name, Args: args, Options: o, Outputs: outputs}
	}
	return []Scenario{
		one("c4096", 512, plan.Options{Context: 4096}, "-c", "4096"),
		one("c16384", 512, plan.Options{Context: 16384}, "-c", "16384"),
		one("ub128", 128, plan.Options{Context: 4096, Batch: 128}, "-c", "4096", "-ub", "128"),
		one("q8kv", 512, plan.Options{Context: 4096, KVTypeK: "q8_0", KVTypeV: "q8_0"}, "-c", "4096", "-ctk", "q8_0", "-ctv", "q8_0"),
		one("noflash", 512, plan.Options{Context: 4096, NoFlash: true}, "-c", "4096", "-fa", "off"),
		one("np4", 512, plan.Options{Context: 4096, Slots: 4, SplitContext: true}, "-c", "4096", "-np", "4"),
	}
}

// Figures are sizes in whole MiB, as llama-fit-params prints them.
type Figures struct {
	Weights, KV, Compute float64
}

// Total is the sum.
func (f Figures) Total() float64 { return f.Weights + f.KV + f.Compute }

// Row is one comparison.
type Row struct {
	Model    ggufgen.Known
	Scenario string
	Said     Figures // by llama-fit-params
	Expected Figures // by runtime/plan
}

// Limits of the comparison: relative, and in MiB for what the printed figures
// lose by being cut to whole MiB.
const (
	WeightsLimit = 0.01
	TotalLimit   = 0.05
	cut          = 1.0
)

// Off says which limits the row exceeds, empty when none.
func (r Row) Off() string {
	var out []string
	check := func(name string, got, want, limit, slack float64) {
		if math.Abs(got-want) > limit*want+slack {
			out = append(out, fmt.Sprintf("%s %.1f instead of %.0f MiB", name, got, want))
		}
	}
	check("weights", r.Expected.Weights, r.Said.Weights, WeightsLimit, cut)
	check("kv", r.Expected.KV, r.Said.KV, WeightsLimit, cut)
	check("total", r.Expected.Total(), r.Said.Total(), TotalLimit, 3*cut)
	return strings.Join(out, ", ")
}

// Deviation is the relative error of the total.
func (r Row) Deviation() float64 { return (r.Expected.Total() - r.Said.Total()) / r.Said.Total() }

// Write stores the sparse file of a model below dir.
func Write(dir string, k ggufgen.Known) (path string, err error) {
	path = filepath.Join(dir, k.ID()+".gguf")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if _, err = k.Builder().WriteSparse(f); err != nil {
		err = fmt.Errorf("%s: %w", k.ID(), err)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return path, err
}

// Expect gives the figures of runtime/plan for a file.
func Expect(path string, s Scenario) (f Figures, err error) {
	m, err := gguf.Open(path)
	if err != nil {
		return f, err
	}
	w, err := plan.Whole(m, s.Options, s.Outputs)
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	return Figures{float64(w.Weights) / mib, float64(w.KV) / mib, float64(w.Compute) / mib}, err
}

// Ask runs llama-fit-params, given as a program and leading arguments, and
// reads the line that it prints for the host.
func Ask(ctx context.Context, program []string, path string, s Scenario) (f Figures, err error) {
	args := slices.Concat(program[1:], []string{"-m", path}, s.Args, []string{"--no-repack", "-fitp", "on"})
	cmd := exec.CommandContext(ctx, program[0], args...)
	var tail strings.Builder
	cmd.Stderr = &tail
	out, err := cmd.Output()
	if err != nil {
		return f, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, last(tail.String()))
	}
	for line := range strings.Lines(string(out)) {
		if f, ok := parseHost(line); ok {
			return f, nil
		}
	}
	return f, fmt.Errorf("%s printed no line for the host", strings.Join(cmd.Args, " "))
}

func last(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// parseHost reads "Host 4789 576 312".
func parseHost(line string) (f Figures, ok bool) {
	w := strings.Fields(line)
	if len(w) != 4 || w[0] != "Host" {
		return f, false
	}
	for i, p := range []*float64{&f.Weights, &f.KV, &f.Compute} {
		v, err := strconv.ParseFloat(w[i+1], 64)
		if err != nil {
			return f, false
		}
		*p = v
	}
	return f, true
}

// Record writes what llama-fit-params said, one comparison a line.
func Record(w io.Writer, rows []Row) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%s %s %.0f %.0f %.0f\n", r.Model.ID(), r.Scenario, r.Said.Weights, r.Said.KV, r.Said.Compute); err != nil {
			return err
		}
	}
	return nil
}

// Recorded reads what Record wrote, by model and scenario.
func Recorded(r io.Reader) (map[string]Figures, error) {
	out := map[string]Figures{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		w := strings.Fields(sc.Text())
		if len(w) != 5 {
			return nil, fmt.Errorf("recorded figures: %q has not five words", sc.Text())
		}
		f, ok := parseHost("Host " + strings.Join(w[2:], " "))
		if !ok {
			return nil, fmt.Errorf("recorded figures: %q is malformed", sc.Text())
		}
		out[w[0]+" "+w[1]] = f
	}
	return out, sc.Err()
}
