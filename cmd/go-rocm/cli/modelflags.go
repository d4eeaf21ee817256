package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// modelFlags are the flags of the commands that load a model.
type modelFlags struct {
	bundle, server, backend      string
	template, override, device   string
	projector, draft             string
	adapters, serverArgs         []string
	context, slots, layers, gpus int
	cacheTypeK, cacheTypeV       string
	cacheRAM                     int
	requireGPU, overcommit       bool
	startTimeout, stallTimeout   time.Duration
}

func (f *modelFlags) register(fs *pflag.FlagSet) {
	f.registerPlan(fs)
	fs.StringVar(&f.template, "chat-template-file", "", "use the chat template in this file instead of the model's")
	fs.StringArrayVar(&f.serverArgs, "server-arg", nil, "pass this argument to llama-server (repeatable)")
	fs.DurationVar(&f.startTimeout, "start-timeout", 0, "stop loading after this time without progress (0: by the model's size)")
	fs.DurationVar(&f.stallTimeout, "stall-timeout", 0, "restart llama-server when requests get no token for this time and, on the CPU, it does no work (0: 2m, or 10m if the model is only partly on the GPU; negative: never)")
}

// registerPlan registers the flags that determine memory and devices.
func (f *modelFlags) registerPlan(fs *pflag.FlagSet) {
	fs.StringVar(&f.bundle, "bundle", "", "run llama-server from this bundle, a directory or a packed file (default: $GOROCM_BUNDLE, else the installed bundle, else the embedded one)")
	fs.StringVar(&f.server, "server", "", "run this llama-server instead of a bundle's, unverified: a program, or its name in $PATH")
	fs.StringVar(&f.backend, "backend", string(plan.BackendAuto), "what computes: auto (by measurement, else hip, vulkan, cpu), hip, vulkan or cpu")
	fs.IntVarP(&f.context, "context", "c", 0, "context size in tokens, shared by the slots (0: the model's own, reduced to fit)")
	fs.IntVar(&f.slots, "slots", 0, "number of requests processed in parallel (0: 4)")
	fs.IntVar(&f.layers, "gpu-layers", -2, "number of layers on the GPU (-2: as many as fit, -1: all, 0: none)")
	fs.IntVar(&f.gpus, "gpus", 0, "number of identical GPUs to split the model over (0: one); it is an error if there are fewer")
	fs.StringVar(&f.device, "device", "", "GPU to use, by PCI address, GPU- id or its name in the list of gpus; it is an error if there is none")
	fs.BoolVar(&f.requireGPU, "require-gpu", false, "fail instead of running on the CPU; HIP or Vulkan will do")
	fs.BoolVar(&f.overcommit, "overcommit", false, "accept a model larger than main memory; it is read from disk repeatedly")
	fs.StringVar(&f.override, "override", string(plan.OverrideOff), "run code built for a related GPU target: off, auto, or a version such as 11.0.0")
	fs.StringArrayVar(&f.adapters, "adapter", nil, "apply this LoRA adapter, a GGUF file (repeatable)")
	fs.StringVar(&f.projector, "mmproj", "", "multimodal projector for images or audio, a GGUF file made for the model")
	fs.StringVar(&f.draft, "draft", "", "draft model for speculative decoding, a GGUF file")
	fs.StringVar(&f.cacheTypeK, "cache-type-k", "", "data type of the K cache, such as q8_0 (default f16)")
	fs.StringVar(&f.cacheTypeV, "cache-type-v", "", "data type of the V cache (default f16)")
	fs.IntVar(&f.cacheRAM, "cache-ram", 0, "main memory for cached prompts, in MiB (0: 8192, or with several models at most 1024 for each; -1: none)")
}

func (f *modelFlags) options() plan.Options {
	layers := f.layers
	switch layers { // the flag's 0 is no layer; the option's is the default
	case 0:
		layers = plan.CPUOnly
	case -2:
		layers = plan.AutoLayers
	}
	return plan.Options{
		Backend: plan.Backend(f.backend), Context: f.context, Slots: f.slots, Layers: layers,
		Devices:  plan.Devices{ID: f.device, Count: f.gpus, Required: f.requireGPU, Override: plan.Override(f.override)},
		Adapters: f.adapters, Projector: f.projector, Draft: f.draft, Overcommit: f.overcommit,
		Cache: plan.Cache{KeyType: f.cacheTypeK, ValueType: f.cacheTypeV, HostLimit: min(int64(f.cacheRAM), math.MaxInt64/plan.MiB) * plan.MiB},
	}
}

func (f *modelFlags) settings(cmd *cobra.Command) rocm.Settings {
	return rocm.Settings{
		Options: f.options(), Bundle: f.bundle, Server: f.server, ChatTemplateFile: f.template, Args: f.serverArgs, Log: logger(cmd),
		Timeouts: rocm.Timeouts{Start: f.startTimeout, Stall: f.stallTimeout},
		Restart:  rocm.Restart{Disabled: true},
	}
}

// addProjector sets the projector that belongs to a model, unless a flag names one.
func (f *modelFlags) addProjector(model string) {
	f.projector = cmp.Or(f.projector, machine.FindProjector(model))
}

// withStore calls f with the store; without one, with nil.
func withStore(f func(s *modelstore.Store) error) error {
	s, err := modelstore.OpenExisting("")
	if errors.Is(err, os.ErrNotExist) {
		return f(nil)
	}
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// storedRecords returns the records that names name, or all if there are none.
func storedRecords(s *modelstore.Store, names []string) ([]modelstore.Record, error) {
	if len(names) == 0 {
		if s == nil {
			return []modelstore.Record{}, nil
		}
		list, err := s.List()
		return append([]modelstore.Record{}, list...), err
	}
	var list []modelstore.Record
	for _, name := range names {
		ref, err := modelref.Parse(name)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, fmt.Errorf("%w: %s", modelstore.ErrNotFound, ref)
		}
		r, err := s.Lookup(ref)
		if err != nil {
			return nil, err
		}
		list = append(list, *r)
	}
	return list, nil
}

// count formats a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// printStored prints the pulled models; states says whether a service has answered.
func printStored(out io.Writer, list []storedModel, states bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, `no models; "go-rocm pull" downloads one, "go-rocm models DIR" lists a directory`)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "NAME\tSIZE\tFILES\tLICENCE\tDIGEST\tADDED\tHERE"
	if states {
		head += "\tSTATE"
	}
	_, _ = fmt.Fprintln(w, head)
	for _, r := range list {
		size, files, digest, added := formatSize(r.Bytes()), strconv.Itoa(len(r.Files)), "verified", r.Added.Format(time.DateOnly)
		switch {
		case len(r.Files) == 0: // only the service has it
			size, files, digest, added = formatSize(r.Served[0].Size), "-", "-", "-"
		case !r.Verified():
			digest = "unverified"
		}
		row := []string{printable(r.Name), size, files, orDash(truncate(r.License)), digest, added, orDash(printable(r.Here))}
		if states {
			row = append(row, printable(describeStates(r.Served)))
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// storeCommands are the subcommands of models.
func storeCommands() []*cobra.Command {
	return []*cobra.Command{showModelCommand(), removeModelCommand(), verifyModelsCommand(), lockModelsCommand(), pruneModelsCommand()}
}

func showModelCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "show where a pulled model came from, and its files",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(func(s *modelstore.Store) error {
				list, err := storedRecords(s, args)
				switch {
				case err != nil:
					return fmt.Errorf("models show: %w", err)
				case asJSON:
					return printJSON(cmd.OutOrStdout(), list[0])
				}
				return printRecord(stdout(cmd), s, &list[0])
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func printRecord(out io.Writer, s *modelstore.Store, r *modelstore.Record) error {
	_, err := fmt.Fprintf(out, "name      %s\nrevision  %s\nlicence   %s\nsize      %s\nadded     %s\n",
		printable(r.Name), orDash(printable(r.Revision)), orDash(printable(r.License)), formatSize(r.Bytes()), r.Added.Format(time.RFC3339))
	for _, f := range r.Files {
		digest := f.SHA256
		if !f.Verified {
			digest += " (unverified: the source names no digest)"
		}
		_, werr := fmt.Fprintf(out, "\n%s  %s\n  size    %d bytes\n  sha256  %s\n  source  %s\n  path    %s\n",
			f.Role, printable(f.Name), f.Size, digest, orDash(printable(f.URL)), s.Path(r, f))
		err = cmp.Or(err, werr)
	}
	return err
}

func removeModelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "remove pulled models",
		Long: `Removes models from the store, and the files that no other model has. Files that a
running program uses stay until "go-rocm models prune" after its end.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(func(s *modelstore.Store) error {
				list, err := storedRecords(s, args)
				if err != nil {
					return fmt.Errorf("models rm: %w", err)
				}
				for _, r := range list {
					if err := s.Remove(r.Name); err != nil {
						return fmt.Errorf("models rm: %w", err)
					}
					_, _ = fmt.Fprintf(stdout(cmd), "removed %s\n", printable(r.Name))
				}
				return pruneStore(cmd, s, false)
			})
		},
	}
}

func pruneModelsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "remove files that no pulled model has, and incomplete downloads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(func(s *modelstore.Store) error {
				if s == nil {
					return nil
				}
				return pruneStore(cmd, s, true)
			})
		},
	}
}

func pruneStore(cmd *cobra.Command, s *modelstore.Store, partial bool) error {
	p, err := s.Prune(partial)
	if errors.Is(err, modelstore.ErrBusy) {
		err = fmt.Errorf(`%w; run "go-rocm models prune" later to free the disk`, err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout(cmd), "freed %s\n", formatSize(p.Bytes))
	return err
}

func verifyModelsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "read every byte of pulled models and compare the digests",
		Long: `Reads every file of the models, or of all, and compares its SHA-256 with the one
that it was stored with. The exit status is 1 if a file is damaged or missing; pull
the model again then, after "go-rocm models rm".`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(func(s *modelstore.Store) error {
				list, err := storedRecords(s, args)
				errs := []error{err}
				for _, r := range list {
					err := s.Verify(cmd.Context(), &r)
					text := "ok"
					if err != nil {
						text = "damaged"
						errs = append(errs, fmt.Errorf("models verify: %s: %w", r.Name, err))
					}
					_, err = fmt.Fprintf(stdout(cmd), "%s: %s\n", printable(r.Name), text)
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
	}
}

func lockModelsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "lock [NAME...]",
		Short: "write the sources and digests of pulled models into a file",
		Long: `Writes ` + pull.LockFile + ` with the source, the commit, the licence, the sizes and the
SHA-256 of the models, or of all. "go-rocm pull --locked" brings the very same
files on another machine. Equal models have equal files.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(func(s *modelstore.Store) error {
				list, err := storedRecords(s, args)
				var l *pull.Lock
				if err == nil && len(list) == 0 {
					err = errors.New("the store has no models; pull them first")
				}
				if err == nil {
					l, err = pull.NewLock(list)
				}
				if err == nil {
					err = l.Write(output)
				}
				if err != nil {
					return fmt.Errorf("models lock: %w", err)
				}
				_, err = fmt.Fprintf(stdout(cmd), "%s: %s\n", output, count(len(l.Models), "model"))
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", pull.LockFile, "file to write")
	return cmd
}
