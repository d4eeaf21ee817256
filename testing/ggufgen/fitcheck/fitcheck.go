// Package fitcheck compares the memory that runtime/plan expects with the output of llama.cpp's
// llama-fit-params, for the shapes of ggufgen.
//
// The command in ../cmd/fitcheck runs the comparison with a real program, and a test of
// runtime/plan uses a recorded one. The package measures no real allocation on a GPU.
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
	Layers  int // on a device, the output layer first; such runs need a device
}

// Scenarios returns the scenarios of the comparison.
func Scenarios() []Scenario {
	one := func(name string, outputs int, o plan.Options, args ...string) Scenario {
		o.Slots = max(o.Slots, 1)
		return Scenario{Name: name, Args: args, Options: o, Outputs: outputs}
	}
	return []Scenario{
		one("c4096", 512, plan.Options{Context: 4096}, "-c", "4096"),
		one("c16384", 512, plan.Options{Context: 16384}, "-c", "16384"),
		one("ub128", 128, plan.Options{Context: 4096, Batch: 128}, "-c", "4096", "-ub", "128"),
		one("q8kv", 512, plan.Options{Context: 4096, Cache: plan.Cache{KeyType: "q8_0", ValueType: "q8_0"}}, "-c", "4096", "-ctk", "q8_0", "-ctv", "q8_0"),
		one("noflash", 512, plan.Options{Context: 4096, NoFlashAttention: true}, "-c", "4096", "-fa", "off"),
		one("np4", 512, plan.Options{Context: 4096, Slots: 4, SplitContext: true}, "-c", "4096", "-np", "4"),
	}
}

// DeviceScenarios returns the scenarios for a device. A server of llama.cpp's RPC backend on the
// loopback interface is such a device, without a GPU.
func DeviceScenarios() []Scenario {
	o := plan.Options{Context: 4096, Slots: 1}
	return []Scenario{
		{"gpu-all", []string{"-c", "4096", "-ngl", "999"}, o, 512, 999},
		{"gpu-10", []string{"-c", "4096", "-ngl", "10"}, o, 512, 10},
	}
}

// Figures are sizes in whole MiB, as llama-fit-params prints them.
type Figures struct {
	Weights, KV, Compute float64
}

// Total returns the sum.
func (f Figures) Total() float64 { return f.Weights + f.KV + f.Compute }

// Row is one comparison.
type Row struct {
	Model    ggufgen.Known
	Scenario string
	Place    string  // "host" or "device"
	Said     Figures // by llama-fit-params
	Expected Figures // by runtime/plan
}

// Limits of the comparison: relative, and in MiB for the truncation of the printed figures to whole
// MiB.
const (
	WeightsLimit = 0.01
	TotalLimit   = 0.05
	cut          = 1.0
	// A host that only prepares inputs needs some MiB in all.
	totalSlack = 6 * cut
)

// Off returns the limits that the row exceeds, or "".
func (r Row) Off() string {
	var out []string
	check := func(name string, got, want, limit, slack float64) {
		if math.Abs(got-want) > limit*want+slack {
			out = append(out, fmt.Sprintf("%s %.1f instead of %.0f MiB", name, got, want))
		}
	}
	check("weights", r.Expected.Weights, r.Said.Weights, WeightsLimit, cut)
	check("kv", r.Expected.KV, r.Said.KV, WeightsLimit, cut)
	check("total", r.Expected.Total(), r.Said.Total(), TotalLimit, totalSlack)
	return strings.Join(out, ", ")
}

// Deviation returns the relative error of the total.
func (r Row) Deviation() float64 { return (r.Expected.Total() - r.Said.Total()) / r.Said.Total() }

// Write writes the sparse file of a model below dir.
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

// Compare runs one comparison. It returns a row for the host and, if there are layers on it, one
// for the device.
func Compare(k ggufgen.Known, path string, s Scenario, said map[string]Figures) ([]Row, error) {
	m, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	device, host, err := plan.Split(m, s.Options, s.Outputs, s.Layers)
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	rows := []Row{{k, s.Name, "host", said["host"], figures(host)}}
	if s.Layers > 0 {
		rows = append(rows, Row{k, s.Name, "device", said["device"], figures(device)})
	}
	return rows, nil
}

func figures(w plan.Memory) Figures {
	return Figures{float64(w.Weights) / mib, float64(w.KV) / mib, float64(w.Compute) / mib}
}

// Ask runs llama-fit-params, given as a program and leading arguments, and returns the figures that
// it prints, by place.
func Ask(ctx context.Context, program []string, path string, s Scenario) (map[string]Figures, error) {
	args := slices.Concat(program[1:], []string{"-m", path}, s.Args, []string{"--no-repack", "-fitp", "on"})
	cmd := exec.CommandContext(ctx, program[0], args...)
	var tail strings.Builder
	cmd.Stderr = &tail
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, last(tail.String()))
	}
	said := map[string]Figures{}
	for line := range strings.Lines(string(out)) {
		if place, f, ok := parseLine(line); ok {
			said[place] = f
		}
	}
	if _, ok := said["host"]; !ok {
		return nil, fmt.Errorf("%s printed no line for the host", strings.Join(cmd.Args, " "))
	}
	if _, ok := said["device"]; !ok && s.Layers > 0 {
		return nil, fmt.Errorf("%s printed no line for a device", strings.Join(cmd.Args, " "))
	}
	return said, nil
}

func last(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// parseLine parses "Host 4789 576 312", or a line that begins with the name of a device.
func parseLine(line string) (place string, f Figures, ok bool) {
	w := strings.Fields(line)
	if len(w) != 4 {
		return "", f, false
	}
	place = "device"
	if strings.EqualFold(w[0], "host") {
		place = "host"
	}
	for i, p := range []*float64{&f.Weights, &f.KV, &f.Compute} {
		v, err := strconv.ParseFloat(w[i+1], 64)
		if err != nil {
			return "", f, false
		}
		*p = v
	}
	return place, f, true
}

// Record writes the figures of llama-fit-params, one comparison per line.
func Record(w io.Writer, rows []Row) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%s %s %s %.0f %.0f %.0f\n", r.Model.ID(), r.Scenario, r.Place, r.Said.Weights, r.Said.KV, r.Said.Compute); err != nil {
			return err
		}
	}
	return nil
}

// Recorded reads the output of Record, by "model scenario" and place.
func Recorded(r io.Reader) (map[string]map[string]Figures, error) {
	out := map[string]map[string]Figures{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		w := strings.Fields(sc.Text())
		if len(w) != 6 {
			return nil, fmt.Errorf("recorded figures: %q has not six words", sc.Text())
		}
		place, f, ok := parseLine(strings.Join(w[2:], " "))
		if !ok {
			return nil, fmt.Errorf("recorded figures: %q is malformed", sc.Text())
		}
		key := w[0] + " " + w[1]
		if out[key] == nil {
			out[key] = map[string]Figures{}
		}
		out[key][place] = f
	}
	return out, sc.Err()
}
