package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func fitCommand() *cobra.Command {
	var m modelFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fit MODEL",
		Short: "tell whether and how a model fits this machine",
		Long: `Reads MODEL's header and the GPUs' free memory and tells what run and serve would
do: which card, how many layers, what memory is expected where, and why. Nothing
is loaded. The status is 0 also when parts stay on the CPU.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := m.options()
			s := rocm.DefaultSettings()
			s.Plan, s.Bundle, s.Log = &o, m.bundle, logger(cmd)
			p, err := rocm.Preview(args[0], s)
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func printPlan(out io.Writer, p *plan.Plan) error {
	switch {
	case p.Fits:
		_, _ = fmt.Fprintf(out, "fits on the GPU: all %d layers, %d tokens of context\n", p.TotalLayers, p.Context)
	case p.GPU:
		_, _ = fmt.Fprintf(out, "fits in part: %d of %d layers on the GPU, %d tokens of context\n", p.Layers, p.TotalLayers, p.Context)
	default:
		_, _ = fmt.Fprintf(out, "runs on the CPU, %d tokens of context\n", p.Context)
	}
	for _, r := range p.Reasons {
		_, _ = fmt.Fprintf(out, "  %s\n", r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "WHERE\tWEIGHTS\tCACHE\tCOMPUTE\tOTHER\tEXPECTED\tFREE\t")
	for _, e := range append(append([]plan.Estimate{}, p.Devices...), p.Host) {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", e.Name, size(e.Weights), size(e.KV), size(e.Compute),
			size(e.Projector+e.Adapters+e.Draft), size(e.Used()), size(e.Free))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "llama-server %s\n", strings.Join(p.Args, " "))
	if len(p.Env) > 0 {
		_, _ = fmt.Fprintf(out, "with %s\n", strings.Join(p.Env, " "))
	}
	return nil
}
