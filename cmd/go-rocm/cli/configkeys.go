package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
)

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
		for _, e := range t.entries {
			if err := setKey(keySettings(&k), e); err != nil {
				errs = append(errs, c.errorAt(e.line, "%v", err))
			}
		}
		if len(errs) > before {
			continue
		}
		digest := strings.ToLower(k.SHA256)
		if err := k.Check(); err != nil {
			errs = append(errs, c.errorAt(t.line, "keys.%s: %v", k.Name, err))
		} else if digests[digest] {
			errs = append(errs, c.errorAt(t.line, "keys.%s: another name has the same sha256", k.Name))
		}
		digests[digest] = true
		keys = append(keys, k)
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
