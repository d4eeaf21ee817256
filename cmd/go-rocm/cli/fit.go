package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// modelPlan is the plan of one of several models, or the reason there is none.
type modelPlan struct {
	Path  string     `json:"path"`
	Plan  *plan.Plan `json:"plan,omitempty"`
	Error string     `json:"error,omitempty"`
}

func fitCommand() *cobra.Command {
	var m modelFlags
	var asJSON bool
	var sim simulation
	cmd := &cobra.Command{
		Use:   "fit MODEL...",
		Short: "show whether and how models fit this machine",
		Long: `Reads the header of MODEL and the free memory of the GPUs, and shows what run and
serve would do: which GPU, how many layers, the expected memory, and why. No model
is loaded. Several models are listed in a table. Of a model that is not pulled, such
as hf:OWNER/REPO:Q4_K_M, only the header is downloaded. The exit status is 1 if a model
cannot be planned, and 0 otherwise, also when layers stay on the CPU.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := m.options()
			hardware, err := sim.machine(cmd.Context(), rocm.Settings{Bundle: m.bundle, Server: m.server, Log: logger(cmd)})
			if err != nil {
				return err
			}
			if len(args) > 1 {
				return fitAll(cmd, hardware, o, args, asJSON)
			}
			p, err := planModel(cmd, hardware, args[0], o)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return printPlan(stdout(cmd), p)
		},
	}
	m.registerPlan(cmd.Flags())
	sim.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON: a plan, or for several models a list of paths and plans")
	return cmd
}

// fitAll plans every model. A model that cannot be planned does not hide the
// others.
func fitAll(cmd *cobra.Command, m *machine.Machine, o plan.Options, paths []string, asJSON bool) error {
	list := make([]modelPlan, len(paths))
	var errs []error
	for i, path := range paths {
		list[i].Path = path
		var err error
		if list[i].Plan, err = planModel(cmd, m, path, o); err != nil {
			list[i].Error = err.Error()
			errs = append(errs, err)
		}
	}
	if asJSON {
		return errors.Join(append(errs, printJSON(cmd.OutOrStdout(), list))...)
	}
	w := tabwriter.NewWriter(stdout(cmd), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "MODEL\tNEEDS\tON GPU\tON HOST\tLAYERS\tCONTEXT\tHERE")
	for _, f := range list {
		name := printable(strings.TrimSuffix(filepath.Base(f.Path), ".gguf"))
		if f.Plan == nil {
			_, _ = fmt.Fprintf(w, "%s\t\t\t\t\t\tno plan, see below\n", name)
			continue
		}
		p := f.Plan
		var onGPU uint64
		for _, e := range p.Devices {
			onGPU += e.Used()
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d/%d\t%d\t%s\n", name, formatSize(p.Needs), formatSize(onGPU), formatSize(p.Host.Used()),
			p.Layers, p.TotalLayers, p.Context, p.Verdict())
	}
	return errors.Join(append(errs, w.Flush())...)
}

func printPlan(out io.Writer, p *plan.Plan) error {
	if err := p.WriteTable(out); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "llama-server %s\n", commandLine(p.Args))
	if len(p.Env) > 0 {
		_, _ = fmt.Fprintf(out, "with %s\n", commandLine(p.Env))
	}
	return nil
}

// simulation are the flags that plan for hardware this machine does not have.
type simulation struct{ card, memory string }

func (s *simulation) register(fs *pflag.FlagSet) {
	fs.StringVar(&s.card, "card", "", "simulate an idle GPU of this target and memory, such as gfx1101:16GiB")
	fs.StringVar(&s.memory, "memory", "", "simulate this amount of main memory, such as 64GiB")
}

// machine reads this machine's hardware and replaces what is simulated.
func (s *simulation) machine(ctx context.Context, settings rocm.Settings) (*machine.Machine, error) {
	m, err := rocm.DetectMachine(ctx, settings)
	if err != nil {
		return nil, err
	}
	if s.memory != "" {
		if m.HostMemory, err = parseSize(s.memory); err != nil {
			return nil, fmt.Errorf("%w: --memory: %w", errUsage, err)
		}
	}
	if s.card == "" {
		return m, nil
	}
	target, bytes, err := parseCard(s.card)
	if err != nil {
		return nil, fmt.Errorf("%w: --card %s: %w", errUsage, s.card, err)
	}
	return m, m.Simulate(target, bytes)
}

// parseCard parses TARGET:SIZE.
func parseCard(card string) (gfx.Target, uint64, error) {
	name, amount, ok := strings.Cut(card, ":")
	if !ok {
		return "", 0, errors.New("write a target and a size, such as gfx1101:16GiB")
	}
	target, err := gfx.Parse(name)
	if err != nil {
		return "", 0, err
	}
	n, err := parseSize(amount)
	if err != nil {
		return "", 0, err
	}
	return target, n, nil
}

// parseSize parses "16GiB" or "16384MiB". All units are binary, as memory sizes
// of machines and GPUs are.
func parseSize(amount string) (uint64, error) {
	digits := strings.TrimRight(amount, "GMiBgb")
	var shift uint
	switch strings.ToLower(amount[len(digits):]) {
	case "gib", "gb", "g":
		shift = 30
	case "mib", "mb", "m":
		shift = 20
	default:
		return 0, fmt.Errorf("the size %q has no unit; write it as 16GiB or 16384MiB", amount)
	}
	n, err := strconv.ParseUint(digits, 10, 24)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("the size %q is not a number of GiB or MiB", amount)
	}
	return n << shift, nil
}
