package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultConfig is where the package puts the service's settings.
const defaultConfig = "/etc/go-rocm/config.toml"

// errConfig marks a settings file that cannot be used; its exit status tells a
// service manager that another try is of no use.
var errConfig = errors.New("config")

// A settings file holds the flags of serve under their own names, and the model.
// So both are described, defaulted and checked in one place.
const modelKey = "model"

// configKeys are the flags that a settings file may set.
func configKeys(fs *pflag.FlagSet) []string {
	keys := []string{modelKey}
	fs.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "help", "verbose": // not serve's own
		default:
			keys = append(keys, f.Name)
		}
	})
	return keys
}

// problem is something in a settings file that has to be changed.
type problem struct {
	path string
	line int // 0 when it belongs to none
	text string
}

// Error gives it as compilers do: file, line, and what to do.
func (p *problem) Error() string {
	if p.line == 0 {
		return p.path + ": " + p.text
	}
	return fmt.Sprintf("%s:%d: %s", p.path, p.line, p.text)
}

// Is makes every problem an errConfig.
func (p *problem) Is(target error) bool { return target == errConfig }

// applyConfig sets the flags that the file gives and the command line does not,
// and returns the file's model. All that is wrong is told at once.
func applyConfig(fs *pflag.FlagSet, c *config) (model string, err error) {
	known := configKeys(fs)
	var errs []error
	for _, e := range c.entries {
		wrong := func(format string, args ...any) {
			errs = append(errs, c.problem(e.key, format, args...))
		}
		switch flag := fs.Lookup(e.key); {
		case !slices.Contains(known, e.key):
			wrong("%s", unknownKey(e.key, known))
		case e.key == modelKey:
			text, ok := e.value.(string)
			if !ok {
				wrong("model must be a string in quotes, the path of a GGUF file")
			}
			model = text
		case flag.Changed:
		default:
			texts, err := flagTexts(flag, e.value)
			if err != nil {
				wrong("%s: %v", e.key, err)
				continue
			}
			for _, text := range texts {
				if err := flag.Value.Set(text); err != nil {
					wrong("%s: %v", e.key, err)
				}
			}
		}
	}
	return model, errors.Join(errs...)
}

func unknownKey(key string, known []string) string {
	if other := strings.ReplaceAll(key, "_", "-"); slices.Contains(known, other) {
		return fmt.Sprintf("unknown key %q: it is written %s", key, other)
	}
	return fmt.Sprintf("unknown key %q: there are %s", key, strings.Join(known, ", "))
}

// flagTexts turns a value into what the flag would be given on a command line.
func flagTexts(flag *pflag.Flag, value any) ([]string, error) {
	kind := flag.Value.Type()
	switch v := value.(type) {
	case bool:
		if kind == "bool" {
			return []string{strconv.FormatBool(v)}, nil
		}
	case int64:
		if kind == "int" {
			return []string{strconv.FormatInt(v, 10)}, nil
		}
	case string:
		if kind == "string" || kind == "duration" {
			return []string{v}, nil
		}
	case []any:
		if kind != "stringArray" {
			break
		}
		var texts []string
		for _, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil, fmt.Errorf("every element must be a string in quotes, not %v", element)
			}
			texts = append(texts, text)
		}
		return texts, nil
	}
	return nil, fmt.Errorf("%v does not fit: write %s", value, map[string]string{
		"bool": "true or false", "int": "a whole number", "string": "a string in quotes",
		"duration":    `a time in quotes, such as "20s" or "5m"`,
		"stringArray": `a list of strings, such as ["a", "b"]`,
	}[kind])
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check the service's settings",
		Long: `The service reads its settings from ` + defaultConfig + `, a TOML file whose keys
are the flags of "go-rocm serve", and the key "model".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "say what is wrong in a settings file",
		Long: `Reads FILE, by default ` + defaultConfig + `, as "go-rocm serve --config FILE" would,
and tells everything that is wrong with it, by line. Files that it names are
looked for with the rights of whoever asks; the service has those of the user
go-rocm. Exits with 78 when something has to be changed.`,
		Example: "  sudo -u go-rocm go-rocm config check",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) > 0 {
				path = args[0]
			}
			if err := checkConfig(path); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: nothing is wrong with it\n", path)
			return err
		},
	}
	show := &cobra.Command{
		Use:   "default",
		Short: "print a settings file with every key, its meaning and default",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return writeDefaultConfig(cmd.OutOrStdout()) },
	}
	cmd.AddCommand(check, show)
	return cmd
}

// checkConfig is what serve does with a settings file before it loads anything.
func checkConfig(path string) error {
	cmd, f := newServe()
	f.config = path
	model, err := f.configure(cmd, nil)
	if err != nil {
		return err
	}
	c, err := readConfig(path)
	if err != nil {
		return err
	}
	var errs []error
	named := map[string][]string{
		modelKey: {model}, "chat-template-file": {f.template}, "mmproj": {f.projector}, "draft": {f.draft},
		"adapter": f.adapters, "bundle": {f.bundle}, "slot-dir": {f.slotDir}, "tls-cert": {f.tlsCert}, "tls-key": {f.tlsKey},
	}
	for _, e := range c.entries {
		for _, name := range named[e.key] {
			if name == "" {
				continue
			}
			if err := readable(name); err != nil {
				errs = append(errs, c.problem(e.key, "%s: %v", e.key, err))
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	_, err = f.loadCredentials(slog.New(slog.DiscardHandler))
	return err
}

func readable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

// writeDefaultConfig writes the file that the package installs.
func writeDefaultConfig(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Settings of go-rocm.service. After a change:
#
#     go-rocm config check && systemctl restart go-rocm
#
# After a change of the files that api-key-file, tls-cert and tls-key name, this
# does, and the model stays loaded:
#
#     systemctl reload go-rocm
#
# The service is installed switched off, since it has no model yet. Put a GGUF
# file where the user go-rocm can read it, name it here, and then:
#
#     systemctl enable --now go-rocm
#
# The keys below, with their defaults, are the flags of "go-rocm serve": see
# go-rocm-serve(1). The unit lets only this machine connect. A file of API keys
# is for the user go-rocm to read and nobody else:
#
#     install -m 0640 -o root -g go-rocm KEYS /etc/go-rocm/api-keys

# the model to serve: the full path of a GGUF file, for example one in
# /var/lib/go-rocm/models
model = ""
`)
	cmd, _ := newServe()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(configKeys(cmd.Flags()), f.Name) {
			fmt.Fprintf(&b, "\n%s#%s = %s\n", comment(f.Usage), f.Name, defaultText(f))
		}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// comment folds a flag's help into lines of a comment.
func comment(usage string) string {
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

func defaultText(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "stringArray":
		return "[]"
	case "bool", "int":
		return f.DefValue
	}
	return strconv.Quote(f.DefValue)
}
