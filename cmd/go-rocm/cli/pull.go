package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// pullFlags are the flags of pull.
type pullFlags struct {
	sim                simulation
	bundle, config     string
	locked, mirror     string
	context            int
	force, noProjector bool
	asJSON             bool
	refs               []modelref.Ref

	// started and progress are called with what is pulled; nil: nothing is called.
	started  func(name string)
	progress func(file string, done, total int64)
}

func pullCommand() *cobra.Command {
	f := &pullFlags{}
	cmd := &cobra.Command{
		Use:   "pull REFERENCE...",
		Short: "download models, and verify them",
		Long: `Downloads models into the store, $` + modelstore.EnvDir + ` or the user's data directory, and
verifies their SHA-256. A REFERENCE is

    hf:OWNER/REPO               the largest quantisation that fits on the GPU
    hf:OWNER/REPO:Q4_K_M        this quantisation
    hf:OWNER/REPO/FILE.gguf     this file
    oci:REGISTRY/NAME:TAG       an artifact of Docker Model Runner or ollama
    https://HOST/FILE.gguf?QUERY#sha256=DIGEST
                                a file on a web server; the query is not stored

with an optional @REVISION (a branch, tag or commit) after those of hf:. The parts
of a split model and a projector for images come along. The same reference is then
the MODEL of run, serve and fit, which never download anything.

An interrupted download continues where it was. A model that this machine cannot
load is not downloaded, as far as its header says, unless --force is set.

--locked reads a file of "go-rocm models lock" and brings the very same bytes,
from a hub or from a directory with the files (--mirror). --config brings the
models that a configuration file of serve names.

The environment of the hub's own tools applies: ` + hub.EnvEndpoint + ` (a mirror), ` + hub.EnvToken + ` or
the token file of their login, HTTPS_PROXY and NO_PROXY. Logins for registries are
those of "docker login"; those for other servers are read from ~/.netrc.`,
		Example: `  go-rocm pull hf:Qwen/Qwen3-8B-GGUF
  go-rocm pull hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main
  go-rocm pull --locked=models.lock --mirror /mnt/models
  go-rocm run hf:Qwen/Qwen3-8B-GGUF`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.bundle, "bundle", "", "plan with this bundle instead of the default one")
	fs.IntVarP(&f.context, "context", "c", 0, "context size in tokens that must fit (0: the model's own, reduced to fit)")
	fs.BoolVar(&f.force, "force", false, "ignore the hardware of this machine")
	fs.BoolVar(&f.noProjector, "no-mmproj", false, "leave the projector for images or audio out")
	fs.StringVar(&f.locked, "locked", "", "pull the models of this lock file")
	fs.Lookup("locked").NoOptDefVal = pull.LockFile
	fs.StringVar(&f.mirror, "mirror", "", "with --locked: copy the files from this directory, and download nothing")
	fs.StringVar(&f.config, "config", "", "pull the models that this configuration file names")
	fs.BoolVar(&f.asJSON, "json", false, "write JSON: the list of records")
	f.sim.register(fs)
	return cmd
}

func (f *pullFlags) run(cmd *cobra.Command, args []string) error {
	switch {
	case f.mirror != "" && f.locked == "":
		return fmt.Errorf("%w: pull: --mirror needs --locked", errUsage)
	case f.locked != "" && (f.config != "" || len(args) > 0):
		return fmt.Errorf("%w: pull: --locked names all models; leave the others out", errUsage)
	case f.locked == "" && f.config == "" && len(args) == 0:
		return fmt.Errorf("%w: pull: name a model, such as hf:OWNER/REPO, or use --locked or --config", errUsage)
	}
	if f.config != "" {
		names, err := configReferences(f.config)
		if err != nil {
			return err
		}
		if args = append(slices.Clone(args), names...); len(args) == 0 {
			_, err := fmt.Fprintf(stdout(cmd), "%s names no model by a reference such as hf:OWNER/REPO; there is nothing to pull\n", f.config)
			return err
		}
	}
	for _, arg := range args {
		ref, err := modelref.Parse(arg)
		if err == nil && !ref.Remote() {
			err = fmt.Errorf("%s is a path of this machine; write hf:OWNER/REPO or https://HOST/FILE", arg)
		}
		if err != nil {
			return fmt.Errorf("%w: pull: %w", errUsage, err)
		}
		f.refs = append(f.refs, ref)
	}
	err := withStoreUntilSignal(cmd, func(ctx context.Context, s *modelstore.Store) error { return f.pull(ctx, cmd, s) })
	var interrupted *signalError
	if errors.As(err, &interrupted) {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "go-rocm: interrupted; the same command continues the download")
	}
	return err
}

// withStoreUntilSignal calls f with the store of models, and with a context that SIGINT or SIGTERM
// cancels. If one did, the error is a *signalError.
func withStoreUntilSignal(cmd *cobra.Command, f func(context.Context, *modelstore.Store) error) error {
	s, err := modelstore.Open("")
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ctx, stop := contextWithSignal(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = f(ctx, s)
	return cmp.Or(signalCause(ctx), err)
}

// configReferences returns the references among the models of a configuration file.
func configReferences(path string) ([]string, error) {
	c, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	entries := c.entries
	for _, t := range c.tablesOf(modelsTable) {
		entries = append(slices.Clone(entries), t.entries...)
	}
	var names []string
	for _, e := range entries {
		text, ok := e.value.(string)
		if !ok || e.key != modelKey {
			continue
		}
		if ref, err := modelref.Parse(text); err == nil && ref.Remote() && !slices.Contains(names, text) {
			names = append(names, text)
		}
	}
	return names, nil
}

// newPuller returns a puller that shows its progress. With hardware, it plans for
// this machine.
func (f *pullFlags) newPuller(cmd *cobra.Command, hardware bool) (p *pull.Puller, clearLine func(), err error) {
	if p, err = pull.New(nil, logger(cmd)); err != nil {
		return nil, nil, err
	}
	if hardware {
		if p.Machine, err = f.sim.machine(cmd.Context(), rocm.Settings{Bundle: f.bundle, Log: logger(cmd)}); err != nil {
			return nil, nil, err
		}
	}
	p.Options, p.NoProjector = plan.Options{Context: f.context}, f.noProjector
	progress := newPullProgress(cmd)
	p.Progress = func(file string, done, total int64) {
		progress.show(file, done, total)
		if f.progress != nil {
			f.progress(file, done, total)
		}
	}
	return p, progress.clear, nil
}

func (f *pullFlags) pull(ctx context.Context, cmd *cobra.Command, s *modelstore.Store) error {
	p, clearLine, err := f.newPuller(cmd, !f.force && f.locked == "")
	if err != nil {
		return err
	}
	defer clearLine()
	records := []modelstore.Record{}
	if f.locked != "" {
		l, err := pull.ReadLock(f.locked)
		if err != nil {
			return fmt.Errorf("pull: %w", err)
		}
		if err := p.PullLocked(ctx, s, l, f.mirror); err != nil {
			return err
		}
		for _, m := range l.Models {
			r, err := s.Get(m.Name)
			if err != nil {
				return err
			}
			records = append(records, *r)
		}
	}
	var errs []error
	for _, ref := range f.refs {
		r, err := f.pullOne(ctx, cmd, p, s, ref)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		records = append(records, *r)
	}
	clearLine()
	if f.asJSON {
		return errors.Join(append(errs, printJSON(cmd.OutOrStdout(), records))...)
	}
	for _, r := range records {
		_, err := fmt.Fprintf(stdout(cmd), "%s: %s, %s, %s\n", r.Name, count(len(r.Files), "file"), formatSize(r.Bytes()), verifiedText(&r))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pullOne pulls a model and says how it was chosen.
func (f *pullFlags) pullOne(ctx context.Context, cmd *cobra.Command, p *pull.Puller, s *modelstore.Store, ref modelref.Ref) (*modelstore.Record, error) {
	if f.started != nil {
		f.started(ref.String())
	}
	found, err := p.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if found.Why != "" {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", printable(found.Record.Name), found.Why)
	}
	r, err := p.Pull(ctx, s, found)
	if errors.Is(err, plan.ErrDoesNotFit) {
		err = fmt.Errorf("%w; --force pulls it nevertheless", err)
	}
	return r, err
}

// verifiedText says what is known about the bytes of a model.
func verifiedText(r *modelstore.Record) string {
	license := cmp.Or(printable(r.License), "unknown licence")
	if r.Verified() {
		return license + ", verified"
	}
	return license + ", unverified: its source names no digest"
}

// planReference plans a model that the store does not have, from its header.
func planReference(cmd *cobra.Command, m *machine.Machine, ref modelref.Ref, o plan.Options) (*plan.Plan, error) {
	p, err := pull.New(nil, logger(cmd))
	if err != nil {
		return nil, err
	}
	p.Machine, p.Options = m, o
	found, err := p.Find(cmd.Context(), ref)
	if err != nil {
		return nil, err
	}
	made, err := p.Plan(cmd.Context(), found)
	if err == nil && found.Why != "" {
		made.Reasons = append([]string{found.Record.Name + " is " + found.Why}, made.Reasons...)
	}
	return made, err
}

// planModel plans the model at a path, or the one that a reference names: from the
// store, or from its header at its source.
func planModel(cmd *cobra.Command, m *machine.Machine, name string, o plan.Options) (*plan.Plan, error) {
	if ref, err := modelref.Parse(name); err == nil && ref.Remote() {
		switch _, _, err := modelstore.Resolve(name); {
		case errors.Is(err, modelstore.ErrNotFound):
			return planReference(cmd, m, ref, o)
		case err != nil:
			return nil, err
		}
	}
	o.Projector = cmp.Or(o.Projector, machine.FindProjector(name))
	return m.Plan(name, o)
}

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
			named := len(args) > 0
			if !named {
				if args = pull.CacheDirs(); len(args) == 0 {
					return errors.New("import: no cache of another program was found; name its directory")
				}
			}
			return withStoreUntilSignal(cmd, func(ctx context.Context, s *modelstore.Store) error { return importCaches(ctx, cmd, p, s, args, named) })
		},
	}
}

// importCaches imports the models in directories. If the user has named them, one
// without models is an error.
func importCaches(ctx context.Context, cmd *cobra.Command, p *pull.Puller, s *modelstore.Store, dirs []string, named bool) error {
	var errs []error
	n := 0
	for _, dir := range dirs {
		if _, err := os.ReadDir(dir); err != nil {
			errs = append(errs, fmt.Errorf("import: %w", err))
			continue
		}
		found, err := p.Candidates(dir)
		if err == nil && len(found) == 0 && named {
			err = fmt.Errorf("import: %s has no model in the layout of the hub's tools, LM Studio (OWNER/REPO/FILE.gguf) or ollama; a file of your own needs no import: use its path", dir)
		}
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
