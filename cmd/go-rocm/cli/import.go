package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

func importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import [DIR...]",
		Short: "use the models that other programs have downloaded",
		Long: `Adds the models in the caches of the hub's own tools, of LM Studio and of ollama to
the store, without a second copy of their bytes: by a clone of the file where the
file system has clones, else by a hard link, else by its path. Without DIR, it looks
where these programs keep their models.

Each file is read, and must be a GGUF file with the SHA-256 that the cache states.
Nothing is downloaded, and the other programs' files are not changed. What cannot be
imported is reported, and the exit status is 1 then.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := pull.New(nil, logger(cmd))
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if args = pull.CacheDirs(); len(args) == 0 {
					return errors.New("import: no cache of another program was found; name its directory")
				}
			}
			s, err := modelstore.Open("")
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			ctx, stop := contextWithSignal(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			err = importCaches(ctx, cmd, p, s, args)
			if cause := signalCause(ctx); cause != nil {
				return cause
			}
			return err
		},
	}
}

func importCaches(ctx context.Context, cmd *cobra.Command, p *pull.Puller, s *modelstore.Store, dirs []string) error {
	var errs []error
	n := 0
	for _, dir := range dirs {
		if _, err := os.ReadDir(dir); err != nil {
			errs = append(errs, fmt.Errorf("import: %w", err))
			continue
		}
		found, err := p.Candidates(dir)
		errs = append(errs, err)
		for _, c := range found {
			r, how, err := p.Import(ctx, s, c)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			n++
			_, err = fmt.Fprintf(stdout(cmd), "%s: %s, %s\n", printable(r.Name), formatSize(r.Bytes()), how)
			errs = append(errs, err)
		}
	}
	_, err := fmt.Fprintf(stdout(cmd), "imported %s\n", count(n, "model"))
	return errors.Join(append(errs, err)...)
}
