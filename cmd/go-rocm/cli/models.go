package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func modelsCommand() *cobra.Command {
	var asJSON bool
	var bundle string
	var sim simulation
	var r remote
	var o plan.Options
	cmd := &cobra.Command{
		Use:   "models [DIR]",
		Short: "list the pulled models, or those in a directory and whether they fit",
		Long: `Lists the models that "go-rocm pull" downloaded: their names, sizes, licences, and
whether their source named the digests that were verified.

With DIR, it lists the models in that directory and its subdirectories instead:
GGUF files, and safetensors directories, which must be converted first. The column
HERE shows what run and serve would do with the model on this machine; "go-rocm
fit" shows the details.

Where a service is running, the column STATE has the names by which it serves the
model, and their states. Without DIR, models that only the service has are listed,
too. "go-rocm ps" shows more about them.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				switch info, err := os.Stat(args[0]); {
				case err != nil:
					return fmt.Errorf("models: %w", err)
				case !info.IsDir():
					return fmt.Errorf(`models: %s is not a directory; "go-rocm fit" plans one model`, args[0])
				}
			}
			m, err := sim.machine(cmd.Context(), rocm.Settings{Bundle: bundle, Log: logger(cmd)})
			if err != nil && len(args) > 0 {
				return err
			}
			served, err := r.states(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				list, err := listStored(cmd, m, o, served)
				if asJSON {
					return errors.Join(err, printJSON(cmd.OutOrStdout(), list))
				}
				return errors.Join(err, printStored(stdout(cmd), list, served != nil))
			}
			list := []foundModel{}
			for f := range m.Discover(cmd.Context(), args[0], o) {
				list = append(list, foundModel{f, served.of(f.Path, f.Bytes)})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printModels(stdout(cmd), args[0], list, served != nil)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&asJSON, "json", false, "write JSON")
	fs.IntVarP(&o.Context, "context", "c", 0, "context size in tokens to plan for (0: the model's own, reduced to fit)")
	fs.StringVar(&bundle, "bundle", "", "plan with this bundle instead of the default one")
	sim.register(fs)
	r.register(fs)
	cmd.AddCommand(storeCommands()...)
	return cmd
}

// foundModel is a model in a directory.
type foundModel struct {
	machine.FoundModel

	// Served are the models of the running service that have its file.
	Served []remoteModel `json:"served,omitempty"`
}

// printModels prints the models in a directory; states says whether a service has
// answered.
func printModels(out io.Writer, dir string, list []foundModel, states bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "no models in %s\n", printable(dir))
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "PATH\tNAME\tKIND\tCLASS\tWEIGHTS\tCONTEXT\tSIZE\tHERE"
	if states {
		head += "\tSTATE"
	}
	_, _ = fmt.Fprintln(w, head)
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
		row := []string{
			printable(path), truncate(m.Name), truncate(m.Architecture), truncate(m.SizeClass), truncate(m.Quantisation), tokens, formatSize(m.Bytes), printable(here),
		}
		if states {
			row = append(row, printable(describeStates(m.Served)))
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// servedModels are the models of a running service.
type servedModels []remoteModel

// statesTimeout limits how long models waits for a service that nobody has named.
const statesTimeout = 2 * time.Second

// states returns the models of the service, nil if none answers. An error is returned
// only where --address names the service.
func (r *remote) states(ctx context.Context) (servedModels, error) {
	if r.address == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, statesTimeout)
		defer cancel()
	}
	list := servedModels{}
	raw, err := r.call(ctx, http.MethodGet, "/models", nil)
	if err == nil {
		body := struct {
			Data *servedModels `json:"data"`
		}{&list}
		err = json.Unmarshal(raw, &body)
	}
	switch {
	case err == nil:
		return list, nil
	case r.address == "":
		return nil, nil
	}
	return nil, fmt.Errorf("models: %w", err)
}

// of returns the models of the service that have this file. A service shows the name of
// a file and its size to clients, and no directory.
func (s servedModels) of(file string, bytes int64) []remoteModel {
	var found []remoteModel
	for _, m := range s {
		if m.File == filepath.Base(file) && m.Size == bytes {
			found = append(found, m)
		}
	}
	return found
}

// describeStates returns the names and the states of models in a few words.
func describeStates(list []remoteModel) string {
	var words []string
	for _, m := range list {
		words = append(words, m.ID+": "+m.describe())
	}
	return orDash(strings.Join(words, ", "))
}

// describe returns the state of a model, and why it failed or does not fit.
func (m *remoteModel) describe() string {
	switch {
	case m.Cause != "":
		return m.State + ", " + m.Cause
	case !m.Fits && len(m.Why) > 0:
		return m.State + ", does not fit: " + m.Why[0]
	}
	return m.State
}

// storedModel is a pulled model, or one that only the service has.
type storedModel struct {
	modelstore.Record

	// Here is what run and serve would do with the model on this machine.
	Here string `json:"here,omitempty"`
	// Served are the models of the running service that have its file.
	Served []remoteModel `json:"served,omitempty"`
}

// modelBytes returns the size of the model itself, without the files beside it.
func modelBytes(r *modelstore.Record) int64 {
	var sum int64
	for _, f := range r.Files {
		if f.Role == modelstore.RoleModel || f.Role == modelstore.RolePart {
			sum += f.Size
		}
	}
	return sum
}

// listStored is "models" without a directory. It returns the pulled models, and those
// that only the service has. Without a bundle m is nil, and nothing is planned.
func listStored(cmd *cobra.Command, m *machine.Machine, o plan.Options, served servedModels) ([]storedModel, error) {
	list := []storedModel{}
	known := map[string]bool{}
	err := withStore(func(s *modelstore.Store) error {
		records, err := storedRecords(s, nil)
		for _, r := range records {
			found := served.of(r.Files[0].Name, modelBytes(&r))
			for _, each := range found {
				known[each.ID] = true
			}
			here := ""
			if m != nil {
				here = verdict(cmd, m, r.Name, o)
			}
			list = append(list, storedModel{r, here, found})
		}
		return err
	})
	for _, each := range served {
		if !known[each.ID] {
			list = append(list, storedModel{Record: modelstore.Record{Name: each.ID}, Served: []remoteModel{each}})
		}
	}
	return list, err
}

// verdict returns in a few words what run and serve would do with a model.
func verdict(cmd *cobra.Command, m *machine.Machine, name string, o plan.Options) string {
	p, err := planModel(cmd, m, name, o)
	switch {
	case errors.Is(err, plan.ErrDoesNotFit):
		return "too large for this machine"
	case err != nil:
		return err.Error()
	}
	return p.Verdict()
}
