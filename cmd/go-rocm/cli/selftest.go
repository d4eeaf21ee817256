package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/selftest"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// errIncomplete reports a self-test in which nothing failed, and that did not test what
// was asked for.
var errIncomplete = errors.New("not everything was tested")

// selftestFlags are the flags of selftest.
type selftestFlags struct {
	bundle, backend, device, override string
	operations, json, report          string
	limit                             time.Duration
}

func selftestCommand(version string) *cobra.Command {
	f := &selftestFlags{}
	cmd := &cobra.Command{
		Use:   "selftest [MODEL]",
		Short: "test this machine's card with a model, and write a report for an issue",
		Long: `Tests go-rocm on this machine, in ten minutes at most: the driver and the cards, the
memory that MODEL uses against the plan's estimate, its answers with each backend
against those of the CPU, a request that is cancelled, llama-server being killed and
started again, unloading, the speed, the backend's operations against the CPU's, and the
card's temperature and power. MODEL is a GGUF file, a directory with one model, or the
reference of a pulled model; without it, the smallest pulled model is used. A model of
one to eight billion parameters tests the most.

Nothing is sent anywhere. The report has no names of users and machines, no directories
and no serial numbers: --report writes it for an issue, --json for programs. Ctrl-C ends
the test with a report of what was tested until then.

The operations are compared by ` + selftest.OperationsName + `, a program of llama.cpp that is not a part
of the bundle. It is used if it is in the bundle's directory, beside the bundle or beside
go-rocm, or if --operations names it.

Each step passed, failed, or was not possible, with the reason and what to do. The exit
status is 0 if nothing failed; 1 if something did; 2 for a mistake in the arguments, such
as a model that cannot be read; 3 if nothing failed, but no card was tested, or the test
ended early. With --backend cpu or vulkan, no card is needed for status 0.`,
		Example: `  go-rocm selftest qwen3-8b-q4_k_m.gguf --report report.md
  go-rocm selftest hf:Qwen/Qwen3-8B-GGUF --json report.json
  go-rocm selftest --backend vulkan --limit 3m`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, version, args) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.bundle, "bundle", "", "test this bundle instead of the default one")
	fs.StringVar(&f.backend, "backend", string(plan.BackendAuto), "what is tested: auto (every backend that works here), hip, vulkan or cpu")
	fs.StringVar(&f.device, "device", "", "GPU to test, by PCI address, GPU- id or its name in the list of gpus (default: the one that is chosen for models)")
	fs.StringVar(&f.override, "override", string(plan.OverrideOff), "run code built for a related GPU target: off, auto, or a version such as 11.0.0")
	fs.StringVar(&f.operations, "operations", "", "path of "+selftest.OperationsName)
	fs.StringVar(&f.report, "report", "", "write the report as Markdown to this file")
	fs.StringVar(&f.json, "json", "", "write the report as JSON to this file")
	fs.DurationVar(&f.limit, "limit", selftest.MaxTime, "end the test after this time, ten minutes at most")
	return cmd
}

// model returns the model to test with, and checks the flags.
func (f *selftestFlags) model(args []string) (string, error) {
	if f.limit <= 0 || f.limit > selftest.MaxTime {
		return "", fmt.Errorf("%w: selftest: --limit %s; use a time of up to %s", errUsage, f.limit, selftest.MaxTime)
	}
	o := f.options()
	if err := o.Validate(); err != nil {
		return "", fmt.Errorf("%w: selftest: %w", errUsage, err)
	}
	if len(args) > 0 {
		return args[0], nil
	}
	name, err := selftest.SmallestModel()
	if err != nil {
		return "", fmt.Errorf("%w: selftest: %w", errUsage, err)
	}
	return name, nil
}

func (f *selftestFlags) options() plan.Options {
	return plan.Options{Backend: plan.Backend(f.backend), Devices: plan.Devices{ID: f.device, Override: plan.Override(f.override)}}
}

func (f *selftestFlags) run(cmd *cobra.Command, version string, args []string) error {
	model, err := f.model(args)
	if err != nil {
		return err
	}
	out, err := f.create()
	if err != nil {
		return err
	}
	defer func() { _ = out.close() }()
	stops, _ := onSIGHUP(true)
	ctx, stop := contextWithSignal(cmd.Context(), append(stops, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	defer withoutSIGPIPE()()
	log, line := logger(cmd), newProgressLine(cmd)
	report, err := selftest.Run(ctx, selftest.Options{
		Version: readBuildInfo(version).Version, Model: model, Limit: f.limit, Operations: f.operations,
		Settings: rocm.Settings{Options: f.options(), Bundle: f.bundle, Log: log},
		Diagnose: func(ctx context.Context) []doctor.Finding { return diagnose(ctx, f.bundle, log) },
		Progress: func(step selftest.StepName, backend plan.Backend, left time.Duration) {
			line.show("testing %s: %s left", strings.TrimSpace(string(backend)+" "+string(step)), left.Round(time.Second))
		},
	})
	line.clear()
	if errors.Is(err, selftest.ErrModel) {
		err = fmt.Errorf("%w: selftest: %w", errUsage, err)
	}
	if err != nil {
		return errors.Join(signalCause(ctx), err)
	}
	printSelftest(stdout(cmd), report)
	if err := out.write(report); err != nil {
		return err
	}
	if err := signalCause(ctx); err != nil {
		return err
	}
	switch report.Verdict {
	case selftest.SomeFailed:
		return fmt.Errorf("selftest: %s failed", count(report.Count(selftest.Failed), "step"))
	case selftest.Incomplete:
		return fmt.Errorf("selftest: %w", errIncomplete)
	}
	return nil
}

// printSelftest prints a line for each step.
func printSelftest(w io.Writer, r *selftest.Report) {
	for _, res := range r.Results {
		_, _ = fmt.Fprintf(w, "%-12s  %-6s  %-10s  %s\n", res.Outcome, string(res.Backend), res.Step, res.Detail)
		if res.Remedy != "" {
			_, _ = fmt.Fprintf(w, "%-12s  %-6s  %-10s  -> %s\n", "", "", "", res.Remedy)
		}
	}
	_, _ = fmt.Fprintf(w, "\n%s: %s\n", r.Verdict, r.Summary())
}

// reportFiles are the files for the report. They are opened before the test, so that a
// name that cannot be written is reported at once. Files of that name keep their content
// until the report is complete.
type reportFiles struct{ json, markdown *regfile.Output }

func (f *selftestFlags) create() (out reportFiles, err error) {
	for _, file := range []struct {
		name string
		to   **regfile.Output
	}{{f.json, &out.json}, {f.report, &out.markdown}} {
		if file.name == "" {
			continue
		}
		if *file.to, err = regfile.Create(file.name, 0o644); err != nil {
			_ = out.close()
			return out, fmt.Errorf("%w: selftest: the file for the report: %w", errUsage, err)
		}
	}
	return out, nil
}

func (o *reportFiles) write(r *selftest.Report) error {
	var err error
	if o.json != nil {
		err = printJSON(o.json, r)
	}
	if o.markdown != nil {
		err = errors.Join(err, r.Markdown(sanitizingWriter{o.markdown}))
	}
	if err != nil {
		return errors.Join(err, o.close())
	}
	for _, f := range []*regfile.Output{o.json, o.markdown} {
		if f != nil {
			err = errors.Join(err, f.Commit())
		}
	}
	return err
}

// close leaves files that write has not written as they were.
func (o *reportFiles) close() error {
	var errs []error
	for _, f := range []*regfile.Output{o.json, o.markdown} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
