package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/modelbench"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// benchFlags are the flags of bench.
type benchFlags struct {
	modelFlags
	depths                 []int
	prompt, answer, rounds int
	quick, noStore, asJSON bool
	svg                    string
}

func benchCommand() *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench MODEL",
		Short: "measure a model with each backend, so that auto chooses the fastest",
		Long: `Loads MODEL once for each backend that works on this machine (HIP, Vulkan, the CPU)
and each setting that matters, and measures how fast llama-server reads a prompt and
generates an answer, with little and with much text in the cache. Speeds are in tokens
per second, with the standard deviation.

The result is stored for this card, driver, kernel and bundle, and for models of this
architecture and quantisation. With --backend auto, the default, run and serve then use
the fastest backend; "go-rocm fit" and "go-rocm doctor" show the result. A stored failure
of a backend that works now is removed.

The settings besides the default ones are: no flash attention, a larger batch, rocBLAS's
own kernels where the bundle has hipBLASLt's, and on a gfx1101 card the code for gfx1100.
--quick leaves them out. The measurement stops when memory becomes short.`,
		Example: `  go-rocm bench qwen3-8b-q4_k_m.gguf
  go-rocm bench model.gguf --backend vulkan --json
  go-rocm bench model.gguf --quick --svg speed.svg`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.bench(cmd, args[0]) },
	}
	fs := cmd.Flags()
	f.register(fs)
	fs.IntSliceVar(&f.depths, "depth", []int{0, 4096}, "numbers of tokens in the cache before the prompt")
	fs.IntVar(&f.prompt, "prompt-tokens", 512, "length of the prompt that is measured")
	fs.IntVar(&f.answer, "answer-tokens", 128, "length of the answer that is measured")
	fs.IntVar(&f.rounds, "rounds", 3, "number of measurements of each, after one that does not count")
	fs.BoolVar(&f.quick, "quick", false, "measure each backend with its default settings only")
	fs.BoolVar(&f.noStore, "no-store", false, "do not store the result")
	fs.BoolVar(&f.asJSON, "json", false, "write JSON")
	fs.StringVar(&f.svg, "svg", "", "write a chart to this file, too")
	return cmd
}

// check rejects values that measure nothing.
func (f *benchFlags) check() error {
	for _, c := range []struct {
		name     string
		n, least int
	}{{"prompt-tokens", f.prompt, 1}, {"answer-tokens", f.answer, 2}, {"rounds", f.rounds, 1}, {"depth", len(f.depths), 1}} {
		if c.n < c.least {
			return fmt.Errorf("%w: bench: --%s needs at least %d", errUsage, c.name, c.least)
		}
	}
	for _, d := range f.depths {
		if d < 0 {
			return fmt.Errorf("%w: bench: --depth %d: a number of tokens is not negative", errUsage, d)
		}
	}
	return nil
}

func (f *benchFlags) bench(cmd *cobra.Command, name string) error {
	if err := f.check(); err != nil {
		return err
	}
	stops, _ := onSIGHUP(true)
	ctx, stop := contextWithSignal(cmd.Context(), append(stops, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	f.addProjector(name)
	path, header, err := machine.OpenModel(name)
	if err != nil {
		return err
	}
	defer func() { _ = header.Close() }()
	settings := f.settings(cmd)
	hardware, err := rocm.DetectMachine(ctx, settings)
	if err == nil {
		err = hardware.ReadVulkan(ctx, nil, settings.Options)
	}
	if err != nil {
		return errors.Join(signalCause(ctx), err)
	}
	record, err := f.measure(ctx, cmd, hardware, path, header, settings)
	if err != nil && len(record.Runs) == 0 {
		return errors.Join(signalCause(ctx), err)
	}
	return errors.Join(err, f.print(cmd, path, record))
}

// measure measures all cases and stores the result.
func (f *benchFlags) measure(ctx context.Context, cmd *cobra.Command, m *machine.Machine, path string, header *gguf.File, settings rocm.Settings) (speed.Record, error) {
	cases, device, skipped := modelbench.Cases(m, path, header, settings.Options, f.quick)
	log := settings.Log
	for backend, why := range skipped {
		log.Info("not measured", "backend", string(backend), "cause", why.Error())
	}
	if len(cases) == 0 {
		return speed.Record{}, errors.Join(skipped[settings.Backend], errors.New("no backend can be measured"))
	}
	line, start := newProgressLine(cmd), time.Now()
	line.show("measuring %d settings", len(cases))
	runs, err := modelbench.Run(ctx, modelbench.Options{
		Path: path, Settings: settings, Depths: f.depths, Prompt: f.prompt, Answer: f.answer, Rounds: f.rounds,
		Progress: func(done float64, s speed.Settings) {
			line.show("%s: %.0f %%, %s left", s, 100*done, modelbench.Remaining(start, time.Now(), done).Round(time.Second))
		},
	}, cases)
	line.clear()
	record := speed.Record{Time: time.Now().UTC().Truncate(time.Second), Runs: runs}
	if device != nil {
		record.Key = m.SpeedKey(*device, header)
	} else {
		record.Key = speed.Key{Card: "no GPU", Architecture: header.Architecture(), Quantisation: header.Quantisation()}
	}
	if f.noStore || device == nil || err != nil || len(record.Fastest()) == 0 {
		return record, err
	}
	return record, storeRecord(record)
}

// storeRecord merges a measurement with what is stored: other backends stay, and failures
// of backends that work now are removed.
func storeRecord(r speed.Record) error {
	var store speed.Store
	old, _ := store.Load(r.Key)
	works := map[string]bool{}
	for _, run := range r.Runs {
		works[run.Backend] = works[run.Backend] || run.Error == ""
	}
	for _, failure := range old.Failures {
		if !works[failure.Backend] {
			r.Failures = append(r.Failures, failure)
		}
	}
	measured := map[speed.Settings]bool{}
	for _, run := range r.Runs {
		measured[run.Settings] = true
	}
	for _, run := range old.Runs {
		if !measured[run.Settings] {
			r.Runs = append(r.Runs, run)
		}
	}
	return store.Save(r)
}

// print writes the table or JSON, and the chart.
func (f *benchFlags) print(cmd *cobra.Command, path string, r speed.Record) error {
	if f.svg != "" {
		if err := writeChart(f.svg, path, r); err != nil {
			return err
		}
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), r)
	}
	if err := printRuns(stdout(cmd), r); err != nil {
		return err
	}
	fastest := r.Fastest()
	if len(fastest) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(stdout(cmd), "\nfastest for a prompt and an answer: %s\n", plan.Backend(fastest[0].Backend))
	return err
}

// writeChart writes a chart with the name of the model's file: charts are published, and
// a path has the names of a person's directories.
func writeChart(name, path string, r speed.Record) error {
	var b strings.Builder
	if err := modelbench.WriteSVG(&b, fmt.Sprintf("%s (%s, %s)", filepath.Base(path), r.Architecture, r.Quantisation), r.Runs); err != nil {
		return err
	}
	if err := regfile.Replace(name, []byte(b.String()), 0o644); err != nil { // a chart is no secret
		return fmt.Errorf("write the chart: %w", err)
	}
	return nil
}

// printRuns writes a row for each run and depth.
func printRuns(out io.Writer, r speed.Record) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SETTINGS\tDEPTH\tPROMPT\tGENERATION")
	for _, run := range r.Runs {
		if run.Error != "" {
			_, _ = fmt.Fprintf(w, "%s\t\tfailed: %s\t\n", run, truncate(run.Error))
			continue
		}
		for _, d := range run.Depths {
			_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", run, d.Tokens, formatSample(d.Prompt), formatSample(d.Generation))
		}
	}
	return w.Flush()
}

// formatSample formats a speed with its standard deviation.
func formatSample(s speed.Sample) string {
	return strconv.FormatFloat(s.Mean, 'f', 1, 64) + " ± " + strconv.FormatFloat(s.Deviation, 'f', 1, 64) + " tokens/s"
}
