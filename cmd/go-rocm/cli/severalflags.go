package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

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
func (f *serveFlags) checkSingle() []error {
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
	return errs
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
	t.file, t.onCommandLine, t.mistaken = c, f.onCommandLine, c.mistakenKeys(err)
	t.noModel = t.model == ""
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
	out.credentials, credentialsErr = f.checkService(log)
	out.pool, modelsErr = f.poolSettings(cmd, log)
	if err := byLine([]error{f.report(credentialsErr), modelsErr}); err != nil {
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
	errs := f.wrongTopLevel()
	for _, table := range f.file.tablesOf(defaultsTable) {
		_, err := f.readTable(f.file.asFile(table))
		errs = append(errs, err)
	}
	errs = append(errs, f.checkDefaults(cmd, log))
	taken := map[string]string{}
	for _, table := range f.file.tablesOf(modelsTable) {
		if len(table.path) != 2 {
			continue // applyConfig reports it
		}
		t, err := f.readTable(f.file.withDefaults(table), modelKey, "aliases", "pinned")
		if t.noModel && !slices.Contains(t.mistaken, modelKey) {
			errs = append(errs, t.file.errorf(modelKey, "[models.%s] has no model: set it to the path of a GGUF file", table.path[1]))
		}
		m := t.poolModel(cmd, log, t.model)
		errs = append(errs, err, t.check(cmd, m), t.claim(taken, table.path[1]))
		s.Models[table.path[1]] = m
	}
	if f.modelsDir != "" {
		err := f.addDirectory(cmd, log, s.Models)
		errs = append(errs, err)
		if len(s.Models) == 0 && err == nil {
			errs = append(errs, f.locate(&keyError{"models-dir", fmt.Errorf("%s contains no model that can be served", f.modelsDir)}))
		}
	}
	if len(s.Models) > 0 {
		errs = append(errs, f.locate(f.checkDefault(s)))
	}
	err := byLine(errs)
	if err == nil {
		err = s.Validate() // as the pool does
	}
	return s, err
}

// checkDefaults checks the settings that all models have, also those of a directory,
// which are read when they are loaded.
func (f *serveFlags) checkDefaults(cmd *cobra.Command, log *slog.Logger) error {
	defaults := &configFile{path: f.config}
	if f.file != nil {
		defaults = f.file.withDefaults(configTable{})
	}
	t, _ := f.readTable(defaults) // the error is that of [defaults]
	if f.file == nil {
		t.file = nil
	}
	s := t.modelSettings(cmd, log)
	return t.locate(errors.Join(s.Validate(), machine.CheckCompanions(nil, s.Options), t.checkModel("")))
}

// wrongTopLevel returns an error for each key about models that stands above the
// tables.
func (f *serveFlags) wrongTopLevel() []error {
	if f.file == nil || len(f.file.tables) == 0 {
		return nil
	}
	var errs []error
	known := configKeys(f.flags)
	for _, e := range f.file.entries {
		if e.key != modelKey && slices.Contains(known, e.key) && !slices.Contains(serviceKeys(), e.key) {
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
	if err == nil {
		err = p.Close()
	}
	errs := slices.DeleteFunc(joined(err), func(err error) bool { return errors.Is(err, plan.ErrDoesNotFit) })
	return t.locate(errors.Join(append(errs, t.checkModel(m.Path))...))
}

// claim rejects names that another model has, and those that are none.
func (t *tableFlags) claim(taken map[string]string, name string) error {
	var errs []error
	for i, each := range append([]string{name}, t.aliases...) {
		if each == "" || strings.ContainsFunc(each, unicode.IsControl) {
			line := t.file.header // of the table
			if i > 0 {
				line = t.file.line("aliases")
			}
			errs = append(errs, t.file.errorAt(line, "the name %q: a model's name must not be empty and must not contain control characters", each))
		}
		if other, ok := taken[each]; ok && other != name {
			errs = append(errs, t.file.errorf("aliases", "the name %q belongs to [models.%s], too", each, other))
		}
		taken[each] = name
	}
	return errors.Join(errs...)
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
		t, _ := f.readTable(defaults) // checkDefaults reports the error
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
