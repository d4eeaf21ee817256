package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// fitted is one row of several models.
type fitted struct {
	Path  string     `json:"path"`
	Plan  *plan.Plan `json:"plan,omitempty"`
	Error string     `json:"error,omitempty"`
}

func fitCommand() *cobra.Command {
	var m modelFlags
	var asJSON bool
	var im imagined
	cmd := &cobra.Command{
		Use:   "fit MODEL...",
		Short: "tell whether and how models fit this machine",
		Long: `Reads MODEL's header and the GPUs' free memory and tells what run and serve would
do: which card, how many layers, what memory is expected where, and why. Nothing
is loaded. Of several models each gets a row. The status is 0 also when parts stay
on the CPU, and 1 when a model cannot be planned for.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := m.options()
			s := rocm.DefaultSettings()
			s.Plan, s.Bundle, s.Log = &o, m.bundle, logger(cmd)
			machine, err := im.machine(s)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				return fitMany(cmd.OutOrStdout(), machine, args, asJSON)
			}
			p, err := machine.Plan(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return printPlan(cmd.OutOrStdout(), p)
		},
	}
	m.registerPlan(cmd.Flags())
	im.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON: a plan, or a list of path and plan for several models")
	return cmd
}

func fitMany(out io.Writer, m *rocm.Machine, paths []string, asJSON bool) error {
	list := make([]fitted, len(paths))
	var errs []error
	for i, path := range paths {
		list[i].Path = path
		var err error
		if list[i].Plan, err = m.Plan(path); err != nil {
			list[i].Error = err.Error()
			errs = append(errs, err)
		}
	}
	if asJSON {
		return errors.Join(append(errs, printJSON(out, list))...)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "MODEL\tNEEDS\tON GPU\tON HOST\tLAYERS\tCONTEXT\tHERE")
	for _, f := range list {
		name := printable(strings.TrimSuffix(filepath.Base(f.Path), ".gguf"))
		if f.Plan == nil {
			_, _ = fmt.Fprintf(w, "%s\t\t\t\t\t\tcannot be planned for\n", name)
			continue
		}
		p := f.Plan
		var onGPU uint64
		for _, e := range p.Devices {
			onGPU += e.Used()
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d/%d\t%d\t%s\n", name, size(p.Needs), size(onGPU), size(p.Host.Used()), p.Layers, p.TotalLayers, p.Context, p.Verdict())
	}
	return errors.Join(append(errs, w.Flush())...)
}

func printPlan(out io.Writer, p *plan.Plan) error {
	if err := p.WriteTable(out); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "llama-server %s\n", strings.Join(p.Args, " "))
	if len(p.Env) > 0 {
		_, _ = fmt.Fprintf(out, "with %s\n", strings.Join(p.Env, " "))
	}
	return nil
}
