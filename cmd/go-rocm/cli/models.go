package cli

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// modelFacts is one model of the list.
type modelFacts struct {
	Path          string `json:"path"`
	Architecture  string `json:"architecture"`
	Name          string `json:"name,omitempty"`
	Quantisation  string `json:"quantisation,omitempty"`
	QuantBits     int    `json:"quant_bits,omitempty"`
	Parameters    uint64 `json:"parameters,omitempty"`
	ContextLength int    `json:"context_length,omitempty"`
	Bytes         int64  `json:"bytes,omitempty"`
	Files         int    `json:"files"`
	Loadable      bool   `json:"loadable"`
	Why           string `json:"why,omitempty"`
}

func modelsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "models [DIR]",
		Short: "list the models in a folder and its sub-folders",
		Long: `Lists the models in DIR (the current folder by default) and in the folders
directly below it: GGUF files, and safetensors folders, which must be converted
before they can be run.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if _, err := os.ReadDir(dir); err != nil {
				return fmt.Errorf("models: %w", err)
			}
			list := []modelFacts{}
			for m := range inference.Discover(dir) {
				list = append(list, modelDetails(m))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "no models in %s\n", dir)
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "PATH\tKIND\tWEIGHTS\tSIZE\tCONTEXT\tNOTE")
			for _, m := range list {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", m.Path, m.Architecture, m.Quantisation, size(m.Bytes), m.ContextLength, m.Why)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// modelDetails looks into a model's header where it is GGUF.
func modelDetails(m inference.DiscoveredModel) modelFacts {
	out := modelFacts{Path: m.Path, Architecture: m.ModelType, QuantBits: m.QuantBits, Files: m.NumFiles}
	if info, err := os.Stat(m.Path); err == nil && info.IsDir() {
		out.Why = "safetensors: convert it with llama.cpp's convert_hf_to_gguf.py"
		return out
	}
	f, err := gguf.Open(m.Path)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	defer func() { _ = f.Close() }()
	out.Loadable, out.Name, out.Quantisation = true, f.Name(), f.Quantisation()
	out.Parameters, out.ContextLength, out.Bytes = f.Parameters(), f.ContextLength(), f.Size()
	return out
}
