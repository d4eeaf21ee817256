package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func modelsCommand() *cobra.Command {
	var asJSON bool
	var bundle string
	var sim simulation
	var o plan.Options
	cmd := &cobra.Command{
		Use:   "models [DIR]",
		Short: "list the pulled models, or those in a directory and whether they fit",
		Long: `Lists the models that "go-rocm pull" downloaded: their names, sizes, licences, and
whether their source named the digests that were verified.

With DIR, it lists the models in that directory and its subdirectories instead:
GGUF files, and safetensors directories, which must be converted first. The column
HERE shows what run and serve would do with the model on this machine; "go-rocm
fit" shows the details. "go-rocm ps" lists the models of a running service.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listStored(cmd, asJSON)
			}
			dir := args[0]
			switch info, err := os.Stat(dir); {
			case err != nil:
				return fmt.Errorf("models: %w", err)
			case !info.IsDir():
				return fmt.Errorf(`models: %s is not a directory; "go-rocm fit" plans one model`, dir)
			}
			m, err := sim.machine(bundle, machine.Config{Log: logger(cmd)})
			if err != nil {
				return err
			}
			list := []machine.FoundModel{}
			for f := range m.Discover(cmd.Context(), dir, o) {
				list = append(list, f)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printModels(stdout(cmd), dir, list)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&asJSON, "json", false, "write JSON")
	fs.IntVarP(&o.Context, "context", "c", 0, "context size in tokens to plan for (0: the model's own, reduced to fit)")
	fs.StringVar(&bundle, "bundle", "", "plan with this bundle instead of the default one")
	sim.register(fs)
	cmd.AddCommand(storeCommands()...)
	return cmd
}

func printModels(out io.Writer, dir string, list []machine.FoundModel) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "no models in %s\n", printable(dir))
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PATH\tNAME\tKIND\tCLASS\tWEIGHTS\tCONTEXT\tSIZE\tHERE")
	for _, m := range list {
		path, err := filepath.Rel(dir, m.Path)
		if err != nil {
			path = m.Path
		}
		here, tokens := m.Verdict, ""
		if m.Why != "" {
			here = m.Why
		}
		if m.ContextLength > 0 {
			tokens = strconv.Itoa(m.ContextLength)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(path), truncate(m.Name), truncate(m.Architecture), truncate(m.SizeClass),
			truncate(m.Quantisation), tokens, formatSize(m.Bytes), printable(here))
	}
	return w.Flush()
}
