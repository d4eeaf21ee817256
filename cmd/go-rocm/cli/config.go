package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/sdnotify"
)

// defaultConfig is where the Debian package installs the service's configuration.
const defaultConfig = "/etc/go-rocm/config.toml"

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check or print the service's configuration, make API keys",
		Long: `The service reads its configuration from ` + defaultConfig + `, a TOML file.
Its keys are the flags of "go-rocm serve", and "model". Its tables [models.NAME] are
models by name, [defaults] has keys for all of them, and [keys.NAME] are API keys
with limits: see "go-rocm config key".`,
		Args: cobra.NoArgs,
		RunE: showHelp,
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "check a configuration file",
		Long: `Reads FILE (default ` + defaultConfig + `) and does everything that "go-rocm
serve --config FILE" does before it listens: it checks every value, reads the
headers of the models, the keys and the certificate, looks whether the files that
the service writes can be written, plans the memory, and, if there are server-args
or a chat template in a file, has llama-server parse them. All mistakes are
reported with their lines, and the exit status is 78 if the file needs a change;
serve fails with the same text and status. A GPU that is required or named and not
there has status 1, since its driver may be loaded later. The check needs the rights
and the GPUs of the service: run it as the user go-rocm, on the same machine. Whether
another program uses the address shows when serve starts.`,
		Example: "  sudo -u go-rocm go-rocm config check",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) > 0 {
				path = args[0]
			}
			if err := checkConfig(cmd, path); err != nil {
				return err
			}
			_, err := fmt.Fprintf(stdout(cmd), "%s: ok\n", path)
			return err
		},
	}
	show := &cobra.Command{
		Use:   "default",
		Short: "print a configuration file with every key, its meaning and its default",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return writeDefaultConfig(stdout(cmd)) },
	}
	cmd.AddCommand(check, show, configKeyCommand())
	return cmd
}

// checkConfig does what serve does with a configuration file before it starts the
// server.
func checkConfig(cmd *cobra.Command, path string) error {
	serve, f := newServe()
	f.config = path
	model, err := f.configure(serve, nil)
	if err != nil {
		return err
	}
	log := logger(cmd)
	if f.several {
		_, err := f.prepareSeveral(cmd, log)
		return err
	}
	s := f.serverSettings(cmd, log, sdnotify.FromEnv(func(string) string { return "" }, log))
	checked, err := f.prepare(cmd.Context(), model, s)
	if err != nil {
		return err
	}
	return checked.close()
}

// configHead is the part of the default configuration file that is not generated
// from flags.
const configHead = `# Configuration of go-rocm.service. After a change:
#
#     go-rocm config check && systemctl restart go-rocm
#
# To reload all API keys and the certificate without a restart:
#
#     systemctl reload go-rocm
#
# The service is disabled after installation, because no model is configured.
# Put a GGUF file where the user go-rocm can read it, set model below, and run:
#
#     systemctl enable --now go-rocm
#
# The other keys are the flags of "go-rocm serve", with their defaults: see
# go-rocm-serve(1). The unit accepts connections from this machine only. Only
# root and the user go-rocm should be able to read a file of API keys:
#
#     install -m 0640 -o root -g go-rocm KEYS /etc/go-rocm/api-keys
#
# To serve several models by name, leave model empty, and set models-dir, or
# append tables:
#
#     [defaults]          # keys for all models, such as context or idle-unload
#     context = 16384
#     [models.qwen3-8b]   # the name that clients use
#     model = "/var/lib/go-rocm/models/Qwen3-8B-Q4_K_M.gguf"
#     aliases = ["gpt-4o-mini"]
#     pinned = true       # loaded at once, and never replaced
#
# "systemctl reload go-rocm" then applies changes of the tables, too.
#
# Keys with limits are tables at the end of this file, which "go-rocm config key
# NAME" prints. All limits may be left out:
#
#     [keys.alice]
#     sha256 = "..."                # of the key, never the key itself
#     models = ["qwen3-*"]          # the models that the key may use
#     requests-per-minute = 60
#     tokens-per-day = 2_000_000    # of prompts and answers, in a day of UTC
#     concurrent = 2                # requests that run or wait at once
#     priority = "high"             # or "low", in the queues

# the model to serve: the absolute path of a GGUF file, for example in
# /var/lib/go-rocm/models, or a reference such as "hf:OWNER/REPO:Q4_K_M", which
# "go-rocm pull --config" downloads
model = ""
`

// writeDefaultConfig writes the configuration file that the package installs.
func writeDefaultConfig(w io.Writer) error {
	var b strings.Builder
	b.WriteString(configHead)
	cmd, _ := newServe()
	keys := configKeys(cmd.Flags())
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(keys, f.Name) {
			fmt.Fprintf(&b, "\n%s#%s = %s\n", commentLines(f.Usage), f.Name, defaultValue(f))
		}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// commentLines wraps a flag's description into TOML comment lines of at most 80
// characters.
func commentLines(usage string) string {
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(strings.ReplaceAll(usage, "`", "")) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// defaultValue returns a flag's default as a TOML value.
func defaultValue(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "stringArray":
		return "[]"
	case "bool", "int":
		return f.DefValue
	}
	return strconv.Quote(f.DefValue)
}

// keysTable is the name of the tables of API keys with limits, [keys.NAME].
const keysTable = "keys"

// keySettings are the keys of such a table.
func keySettings(k *gateway.Key) map[string]any {
	return map[string]any{
		"sha256": &k.SHA256, "models": &k.Models, "requests-per-minute": &k.RequestsPerMinute, "tokens-per-day": &k.TokensPerDay,
		"concurrent": &k.Concurrent, "priority": &k.Priority,
	}
}

// namedKeys returns the API keys of the tables [keys.NAME]. The error joins a
// configError for each mistake.
func (c *configFile) namedKeys() ([]gateway.Key, error) {
	var keys []gateway.Key
	var errs []error
	digests := map[string]bool{}
	for _, t := range c.tables {
		if t.path[0] != keysTable || len(t.path) == 1 && len(t.entries) == 0 {
			continue
		}
		if len(t.path) != 2 {
			errs = append(errs, c.errorAt(t.line, "unexpected table %q: write [keys.NAME]", strings.Join(t.path, ".")))
			continue
		}
		k := gateway.Key{Name: t.path[1]}
		before := len(errs)
		lines := map[string]int{}
		for _, e := range t.entries {
			if err := setKey(keySettings(&k), e); err != nil {
				errs = append(errs, c.errorAt(e.line, "%v", err))
				lines[e.key] = 0 // reported
				continue
			}
			lines[e.key] = e.line
		}
		for _, err := range joined(k.Check()) {
			line := t.line
			var setting *gateway.KeySettingError
			if errors.As(err, &setting) {
				if at, there := lines[setting.Setting]; there {
					line = at
				}
			}
			if line > 0 {
				errs = append(errs, c.errorAt(line, "keys.%s: %v", k.Name, err))
			}
		}
		digest := strings.ToLower(k.SHA256)
		if digest != "" && digests[digest] {
			errs = append(errs, c.errorAt(cmp.Or(lines["sha256"], t.line), "keys.%s: another name has the same sha256", k.Name))
		}
		digests[digest] = true
		if len(errs) == before {
			keys = append(keys, k)
		}
	}
	return keys, errors.Join(errs...)
}

// setKey stores the value of an entry.
func setKey(settings map[string]any, e configEntry) error {
	switch to := settings[e.key].(type) {
	case *string:
		text, ok := e.value.(string)
		if !ok {
			return fmt.Errorf("%s must be a string in quotes", e.key)
		}
		*to = text
	case *int:
		n, ok := e.value.(int64)
		if !ok || n != int64(int(n)) {
			return fmt.Errorf("%s must be a whole number", e.key)
		}
		*to = int(n)
	case *int64:
		n, ok := e.value.(int64)
		if !ok {
			return fmt.Errorf("%s must be a whole number", e.key)
		}
		*to = n
	case *[]string:
		list, ok := e.value.([]any)
		for _, element := range list {
			text, isText := element.(string)
			*to, ok = append(*to, text), ok && isText
		}
		if !ok {
			return fmt.Errorf(`%s must be a list of strings, such as ["a", "b"]`, e.key)
		}
	default:
		var names []string
		for name := range settings {
			names = append(names, name)
		}
		slices.Sort(names)
		return errors.New(describeUnknownKey(e.key, names))
	}
	return nil
}

func configKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key NAME",
		Short: "make an API key with a name, for which limits can be set",
		Long: `Makes a random API key. The key itself is printed to the standard error, for the
one who will use it, and is stored nowhere. The table for the configuration file is
printed to the standard output; it has the SHA-256 of the key. These can be added
to the table, and each that is left out is no limit:

    models = ["qwen3-*"]        # patterns for the names of models
    requests-per-minute = 60
    tokens-per-day = 2_000_000  # of prompts and answers, in a day of UTC
    concurrent = 2              # requests that run or wait at once
    priority = "high"           # or "low", in the queues; default "normal"`,
		Example: "  go-rocm config key alice >>/etc/go-rocm/config.toml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\'' || r == 0x7f }) {
				return fmt.Errorf("%w: a key's name must not be empty and must not contain quotes or control characters", errUsage)
			}
			key, digest := gateway.NewKey()
			if _, err := fmt.Fprintf(stdout(cmd), "\n[%s.%s]\nsha256 = %q\n", keysTable, tomlKey(name), digest); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.ErrOrStderr(), "the key of %s: %s\n", name, key)
			return err
		},
	}
}

// tomlKey returns a name as a key of TOML, in quotes if it needs them.
func tomlKey(name string) string {
	bare := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !bare(r) }) {
		return "'" + name + "'"
	}
	return name
}

// readNamedKeys reads the keys with limits of the configuration file again.
func (f *serveFlags) readNamedKeys() ([]gateway.Key, error) {
	if f.config == "" {
		return nil, nil
	}
	c, err := readConfig(f.config)
	if err != nil {
		return nil, err
	}
	return c.namedKeys()
}

// usagePath returns the file of used tokens: that of --usage-file, or one in the
// directory that systemd keeps for the service. A reload may add the first key with a
// budget.
func (f *serveFlags) usagePath() string {
	directory, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if f.usageFile != "" || directory == "" {
		return f.usageFile
	}
	return filepath.Join(directory, "used-tokens.json")
}
