package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// severalFlags are the flags of serve that concern several models.
type severalFlags struct {
	modelsDir, defaultModel  string
	idleUnload, minResidency time.Duration
	partialOffload           bool
	yieldMemory, hostMemory  int
	watchConfig              bool
}

func (f *severalFlags) registerSeveral(fs *pflag.FlagSet) {
	fs.StringVar(&f.modelsDir, "models-dir", "", "serve every model in this directory by its name, and load it when it is asked for")
	fs.StringVar(&f.defaultModel, "default-model", "", "with several models: the name of the model for requests that name none")
	fs.DurationVar(&f.idleUnload, "idle-unload", 0, "with several models: unload a model that was not used for this time (0: when its memory is needed)")
	fs.BoolVar(&f.partialOffload, "partial-offload", false, "with several models: divide a model that does not fit on a GPU between the GPU and the CPU, instead of refusing it")
	fs.DurationVar(&f.minResidency, "min-residency", 0, "with several models: keep a model loaded for at least this time before another one may replace it (0: 15s; negative: no time)")
	fs.IntVar(&f.yieldMemory, "yield-memory", 0, "with several models: unload idle models when less memory than this, in MiB, is free on a GPU (0: 256)")
	fs.IntVar(&f.hostMemory, "host-memory", 0, "with several models: main memory for all of them, in MiB (0: that of the machine or of the control group)")
	fs.BoolVar(&f.watchConfig, "watch-config", false, "with several models: apply changes of the configuration file at once, as SIGHUP does")
}

// onlySeveral lists the flags that have no effect on one model.
func onlySeveral() []string {
	return []string{"default-model", "idle-unload", "partial-offload", "min-residency", "yield-memory", "host-memory", "watch-config"}
}

// serviceKeys lists the keys that concern the service, and no single model.
func serviceKeys() []string {
	return append(observeKeys(),
		"listen", "api-key-file", "cors-origin", "tls-cert", "tls-key", "drain", "no-page",
		"usage-file", "models-dir", "default-model", "min-residency", "yield-memory", "host-memory", "watch-config",
	)
}

// checkSingle rejects, for one model, what concerns several.
func (f *serveFlags) checkSingle() error {
	var errs []error
	for _, t := range f.file.tablesOf(defaultsTable) {
		errs = append(errs, f.file.errorAt(t.line, "[defaults] is for models-dir and for tables [models.NAME]; write its keys above the tables"))
	}
	for _, name := range onlySeveral() {
		switch flag := f.flags.Lookup(name); {
		case flag.Changed:
			errs = append(errs, fmt.Errorf("%w: serve: --%s is for several models: use --models-dir, or a configuration file with tables [models.NAME]", errUsage, name))
		case flag.Value.String() != flag.DefValue:
			errs = append(errs, f.file.errorf(name, "%s is for several models: set models-dir, or write tables [models.NAME]", name))
		}
	}
	return errors.Join(errs...)
}

// excludeModel rejects one model beside several.
func (f *serveFlags) excludeModel(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: serve: name either a model or a directory or file with several", errUsage)
	}
	return f.file.errorf(modelKey, "model is for one model: write it into a table [models.NAME], or remove the tables and models-dir")
}

// tableFlags are the keys of [defaults] and [models.NAME].
type tableFlags struct {
	*serveFlags
	model   string
	aliases []string
	pinned  bool
}

// readTable reads a table, over which the command line takes precedence. keys are
// further keys that it may have.
func (f *serveFlags) readTable(c *configFile, keys ...string) (*tableFlags, error) {
	cmd, flags := newServe()
	t := &tableFlags{serveFlags: flags}
	fs := cmd.Flags()
	all := slices.DeleteFunc(configKeys(fs), func(key string) bool {
		return key == modelKey || key == "alias" || slices.Contains(serviceKeys(), key)
	})
	fs.StringVar(&t.model, modelKey, "", "")
	fs.StringArrayVar(&t.aliases, "aliases", nil, "")
	fs.BoolVar(&t.pinned, "pinned", false, "")
	_, err := applyConfig(fs, c, append(keys, all...), func(key string) string {
		switch {
		case slices.Contains(serviceKeys(), key):
			return key + " is for the service: write it above the tables"
		case key == "alias":
			return `write aliases = ["NAME"]`
		case key == modelKey || key == "aliases" || key == "pinned":
			return key + " is for one model: write it into a table [models.NAME]"
		}
		return ""
	})
	f.flags.Visit(func(from *pflag.Flag) {
		if slices.Contains(all, from.Name) {
			err = errors.Join(err, copyFlag(fs.Lookup(from.Name), from))
		}
	})
	t.file, t.onCommandLine = c, f.onCommandLine
	return t, err
}

// copyFlag sets a flag to the value of one of the same type.
func copyFlag(to, from *pflag.Flag) error {
	source, isList := from.Value.(pflag.SliceValue)
	target, ok := to.Value.(pflag.SliceValue)
	if isList && ok {
		return target.Replace(source.GetSlice())
	}
	return to.Value.Set(from.Value.String())
}

// poolModel returns the settings of a model in a pool.
func (t *tableFlags) poolModel(cmd *cobra.Command, log *slog.Logger, path string) rocm.PoolModel {
	t.addProjector(path)
	return rocm.PoolModel{
		Settings: t.modelSettings(cmd, log), Path: path, Aliases: t.aliases,
		Pinned: t.pinned, IdleUnload: t.idleUnload, PartialOffload: t.partialOffload,
	}
}

// severalService is what serve has checked before it starts anything.
type severalService struct {
	credentials *gateway.CredentialStore
	pool        rocm.PoolSettings
}

// prepareSeveral is prepare for several models: "config check" ends here.
func (f *serveFlags) prepareSeveral(cmd *cobra.Command, log *slog.Logger) (*severalService, error) {
	out := &severalService{}
	var credentialsErr, modelsErr error
	out.credentials, credentialsErr = f.checkCredentials(log)
	out.pool, modelsErr = f.poolSettings(cmd, log)
	if err := errors.Join(f.locate(credentialsErr), modelsErr); err != nil {
		return nil, err
	}
	return out, nil
}

// poolSettings reads the models of the configuration file and of --models-dir, and
// checks each as prepare does.
func (f *serveFlags) poolSettings(cmd *cobra.Command, log *slog.Logger) (rocm.PoolSettings, error) {
	s := rocm.PoolSettings{
		Models: map[string]rocm.PoolModel{}, Default: f.defaultModel, MinResidency: f.minResidency, Log: log,
		YieldMemory: uint64(max(f.yieldMemory, 0)) * plan.MiB, HostMemory: uint64(max(f.hostMemory, 0)) * plan.MiB,
	}
	var errs []error
	errs = append(errs, f.wrongTopLevel()...)
	for _, table := range f.file.tablesOf(defaultsTable) {
		if _, err := f.readTable(f.file.asFile(table)); err != nil {
			return s, errors.Join(append(errs, err)...)
		}
	}
	taken := map[string]string{}
	for _, table := range f.file.tablesOf(modelsTable) {
		t, err := f.readTable(f.file.withDefaults(table), modelKey, "aliases", "pinned")
		if err == nil && t.model == "" {
			err = t.file.errorf(modelKey, "[models.%s] has no model: set it to the path of a GGUF file", table.path[1])
		}
		if err == nil {
			m := t.poolModel(cmd, log, t.model)
			if err = t.check(cmd, m); err == nil {
				err = t.claim(taken, table.path[1])
			}
			s.Models[table.path[1]] = m
		}
		errs = append(errs, err)
	}
	if f.modelsDir != "" {
		errs = append(errs, f.addDirectory(cmd, log, s.Models))
	}
	if err := errors.Join(unique(errs)...); err != nil {
		return s, err
	}
	if len(s.Models) == 0 {
		return s, f.locate(&keyError{"models-dir", fmt.Errorf("%s contains no model that can be served", f.modelsDir)})
	}
	if err := f.checkDefault(s); err != nil {
		return s, f.locate(err)
	}
	return s, nil
}

// unique returns the errors with different texts: a mistake in [defaults] is one of
// every model.
func unique(errs []error) []error {
	seen := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		if err == nil || seen[err.Error()] {
			return true
		}
		seen[err.Error()] = true
		return false
	})
}

// wrongTopLevel returns an error for each key about models that stands above the
// tables.
func (f *serveFlags) wrongTopLevel() []error {
	if f.file == nil || len(f.file.tables) == 0 {
		return nil
	}
	var errs []error
	for _, e := range f.file.entries {
		if e.key != modelKey && !slices.Contains(serviceKeys(), e.key) {
			errs = append(errs, f.file.errorf(e.key, "%s is for models: write it into [defaults] or [models.NAME]", e.key))
		}
	}
	return errs
}

// check checks a model as prepare does. A model that does not fit at the moment is
// no mistake.
func (t *tableFlags) check(cmd *cobra.Command, m rocm.PoolModel) error {
	m.Log = nil // the plan is logged when the model is loaded
	p, err := rocm.Prepare(cmd.Context(), m.Path, m.Settings)
	if errors.Is(err, plan.ErrDoesNotFit) {
		return nil
	}
	if err == nil {
		err = errors.Join(t.checkPooling(p.Header), p.Close())
	}
	if err == nil && t.idleUnload < 0 {
		err = &keyError{"idle-unload", fmt.Errorf("%v; use 0s to keep the model loaded", t.idleUnload)}
	}
	return t.locate(err)
}

// claim rejects names that another model has.
func (t *tableFlags) claim(taken map[string]string, name string) error {
	for _, each := range append([]string{name}, t.aliases...) {
		if other, ok := taken[each]; ok && other != name {
			return t.file.errorf("aliases", "the name %q belongs to [models.%s], too", each, other)
		}
		taken[each] = name
	}
	return nil
}

func (f *serveFlags) checkDefault(s rocm.PoolSettings) error {
	if s.Default == "" {
		return nil
	}
	for name, m := range s.Models {
		if name == s.Default || slices.Contains(m.Aliases, s.Default) {
			return nil
		}
	}
	return &keyError{"default-model", fmt.Errorf("no model is called %q", s.Default)}
}

// addDirectory adds the models of --models-dir that the file does not name. Files
// that cannot be served are logged.
func (f *serveFlags) addDirectory(cmd *cobra.Command, log *slog.Logger, models map[string]rocm.PoolModel) error {
	if _, err := os.ReadDir(f.modelsDir); err != nil {
		return f.locate(&keyError{"models-dir", err})
	}
	configured := map[string]bool{}
	for _, m := range models {
		if path, err := machine.FindModel(m.Path); err == nil {
			configured[path] = true
		}
	}
	defaults := &configFile{path: f.config}
	if f.file != nil {
		defaults = f.file.withDefaults(configTable{})
	}
	for found := range gguf.Discover(cmd.Context(), f.modelsDir) {
		path, err := filepath.Abs(found.Path)
		if err == nil {
			err = found.Err
		}
		switch {
		case err != nil:
			log.Warn("not served", "path", found.Path, "cause", err.Error())
			continue
		case found.Format != "gguf" || found.Kind != "model" || found.Architecture == "clip" || configured[path]:
			continue
		}
		t, err := f.readTable(defaults)
		if err != nil {
			return err
		}
		_, header, err := machine.OpenModel(path)
		if err != nil {
			log.Warn("not served", "path", found.Path, "cause", err.Error())
			continue
		}
		t.setPurpose(header)
		_ = header.Close()
		models[directoryName(f.modelsDir, found.Path, models)] = t.poolModel(cmd, log, path)
	}
	return nil
}

// The values of pooling_type in a model's header (llama.h).
const poolingNone, poolingRank = 0, 4

// setPurpose makes a model for embeddings or reranking serve that, unless the settings
// say what it is for.
func (t *tableFlags) setPurpose(header *gguf.File) {
	pooling, ok := header.ArchUint("pooling_type")
	if !ok || pooling == poolingNone || t.embeddings || t.reranking || t.pooling != "" {
		return
	}
	t.reranking = pooling == poolingRank
	t.embeddings = !t.reranking
}

// directoryName returns the name of a model in a directory: that of its file,
// without the ending and the number of the part, or with its directories where
// another model has that name.
func directoryName(dir, path string, models map[string]rocm.PoolModel) string {
	short := func(path string) string {
		if prefix, _, _, split := gguf.SplitName(path); split {
			return prefix
		}
		return path[:len(path)-len(filepath.Ext(path))]
	}
	name := short(filepath.Base(path))
	if _, taken := models[name]; !taken {
		return name
	}
	if rel, err := filepath.Rel(dir, path); err == nil {
		return filepath.ToSlash(short(rel))
	}
	return short(path)
}
