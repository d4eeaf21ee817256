package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// modelFacts is one model of the list.
type modelFacts struct {
	gguf.Found

	Loadable bool   `json:"loadable"`
	Why      string `json:"why,omitempty"` // why it cannot be loaded
	// What the plan for this machine says.
	Fits        bool   `json:"fits"`
	Here        string `json:"here,omitempty"`
	Needs       uint64 `json:"needs,omitempty"`
	Layers      int    `json:"layers,omitempty"`
	TotalLayers int    `json:"total_layers,omitempty"`
	Context     int    `json:"context,omitempty"`
}

func modelsCommand() *cobra.Command {
	var asJSON bool
	var bundle string
	var im imagined
	o := plan.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "models [DIR]",
		Short: "list the models below a folder and whether they fit this machine",
		Long: `Lists the models in DIR (the current folder by default) and everywhere below it:
GGUF files, and safetensors folders, which must be converted before they can be
run. HERE says what run and serve would do with each on this machine; fit says
more about one.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if _, err := os.ReadDir(dir); err != nil {
				return fmt.Errorf("models: %w", err)
			}
			s := rocm.DefaultSettings()
			s.Plan, s.Bundle, s.Log = &o, bundle, logger(cmd)
			machine, err := im.machine(s)
			if err != nil {
				return err
			}
			list := listModels(cmd.Context(), dir, machine)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printModels(cmd.OutOrStdout(), dir, list)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&asJSON, "json", false, "write JSON")
	fs.IntVarP(&o.Context, "context", "c", 0, "context in tokens to plan with (0: the model's own, reduced to fit)")
	fs.StringVar(&bundle, "bundle", "", "plan with this bundle instead of the one that would be used")
	im.register(fs)
	return cmd
}

func listModels(ctx context.Context, dir string, machine *rocm.Machine) []modelFacts {
	list := []modelFacts{}
	for f := range gguf.Discover(ctx, dir) {
		list = append(list, judgeModel(f, machine))
	}
	return list
}

// judgeModel says whether a model can be loaded, and plans for it if so.
func judgeModel(f gguf.Found, machine *rocm.Machine) modelFacts {
	out := modelFacts{Found: f}
	switch {
	case f.Err != nil:
		out.Why = f.Err.Error()
	case f.Format == "safetensors":
		out.Why = "safetensors: convert it with llama.cpp's convert_hf_to_gguf.py"
	case f.Kind == "mmproj" || f.Architecture == "clip":
		out.Why = "a projector: give it with --projector beside its model"
	case f.Kind == "adapter":
		out.Why = "an adapter: give it with --adapter beside its model"
	case f.Kind != "model":
		out.Why = "no model: it holds a " + f.Kind
	}
	if out.Why != "" {
		return out
	}
	out.Loadable = true
	p, err := machine.Plan(f.Path)
	switch {
	case errors.Is(err, plan.ErrDoesNotFit):
		out.Here = "too large for this machine"
	case err != nil:
		out.Loadable, out.Why = false, err.Error()
	default:
		out.Fits, out.Here, out.Needs = p.Fits, verdict(p), p.Needs
		out.Layers, out.TotalLayers, out.Context = p.Layers, p.TotalLayers, p.Context
	}
	return out
}

func printModels(out io.Writer, dir string, list []modelFacts) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "no models in %s\n", dir)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PATH\tNAME\tKIND\tCLASS\tWEIGHTS\tCONTEXT\tSIZE\tHERE")
	for _, m := range list {
		path, err := filepath.Rel(dir, m.Path)
		if err != nil {
			path = m.Path
		}
		here, tokens := m.Here, ""
		if m.Why != "" {
			here = m.Why
		}
		if m.ContextLength > 0 {
			tokens = strconv.Itoa(m.ContextLength)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", path, m.Name, m.Architecture, m.SizeClass, m.Quantisation, tokens, size(m.Bytes), here)
	}
	return w.Flush()
}
