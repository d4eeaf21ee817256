package cli

import (
	"fmt"
	"io"
	"strings"

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
			p, err := rocm.Plan(args[0], s)
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
	if err := p.WriteTable(out); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "llama-server %s\n", strings.Join(p.Args, " "))
	if len(p.Env) > 0 {
		_, _ = fmt.Fprintf(out, "with %s\n", strings.Join(p.Env, " "))
	}
	return nil
}
