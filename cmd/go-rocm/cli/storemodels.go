package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// storedProjector returns the path of the projector of a model of the store; empty
// if it has none, or model is a path.
func storedProjector(model string) string {
	path, r, err := modelstore.Resolve(model)
	if err != nil || r == nil {
		return "" // loading the model says why
	}
	projector, ok := r.Projector()
	if !ok {
		return ""
	}
	return filepath.Join(filepath.Dir(path), projector.Name)
}

// addProjector sets the projector of a model of the store, unless a flag names one.
func (f *modelFlags) addProjector(model string) {
	f.projector = cmp.Or(f.projector, storedProjector(model))
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
			return nil, fmt.Errorf("%w: %s", modelstore.ErrNotFound, name)
		}
		r, err := s.Lookup(ref)
		if err != nil {
			return nil, err
		}
		list = append(list, *r)
	}
	return list, nil
}

// listStored is "models" without a directory.
func listStored(cmd *cobra.Command, asJSON bool) error {
	return withStore(func(s *modelstore.Store) error {
		list, err := storedRecords(s, nil)
		if asJSON {
			return errors.Join(err, printJSON(cmd.OutOrStdout(), list))
		}
		return errors.Join(err, printStored(stdout(cmd), list))
	})
}

// count formats a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func printStored(out io.Writer, list []modelstore.Record) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, `no models; "go-rocm pull" downloads one, "go-rocm models DIR" lists a directory`)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tSIZE\tFILES\tLICENCE\tDIGEST\tADDED")
	for _, r := range list {
		digest := "verified"
		if !r.Verified() {
			digest = "unverified"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", printable(r.Name), formatSize(r.Bytes()), len(r.Files), orDash(truncate(r.License)), digest, r.Added.Format(time.DateOnly))
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
