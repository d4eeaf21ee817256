package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// defaultConfig is where the Debian package installs the service's configuration.
const defaultConfig = "/etc/go-rocm/config.toml"

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check or print the service's configuration",
		Long: `The service reads its configuration from ` + defaultConfig + `, a TOML file.
Its keys are the flags of "go-rocm serve", and "model".`,
		Args: cobra.NoArgs,
		RunE: showHelp,
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "check a configuration file",
		Long: `Reads FILE (default ` + defaultConfig + `) as "go-rocm serve --config FILE" does
and reports every mistake with its line. The files it names must be readable for
the user who runs the check; the service runs as the user go-rocm. The exit
status is 78 if the file needs a change.`,
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
	cmd.AddCommand(check, show)
	return cmd
}

// checkConfig does what serve does with a configuration file before it loads the
// model.
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
	files := map[string][]string{
		modelKey: {model}, "chat-template-file": {f.template}, "mmproj": {f.projector}, "draft": {f.draft},
		"adapter": f.adapters, "bundle": {f.bundle}, "slot-dir": {f.slotDir}, "tls-cert": {f.tlsCert}, "tls-key": {f.tlsKey},
	}
	for _, e := range c.entries {
		for _, name := range files[e.key] {
			if name == "" {
				continue
			}
			if err := checkReadable(name); err != nil {
				errs = append(errs, c.errorf(e.key, "%s: %v", e.key, err))
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	_, err = f.loadCredentials(slog.New(slog.DiscardHandler))
	return err
}

func checkReadable(name string) error {
	f, err := regfile.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

// configHead is the part of the default configuration file that is not generated
// from flags.
const configHead = `# Configuration of go-rocm.service. After a change:
#
#     go-rocm config check && systemctl restart go-rocm
#
# To reload the files of api-key-file, tls-cert and tls-key without a restart:
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

# the model to serve: the absolute path of a GGUF file, for example in
# /var/lib/go-rocm/models
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
