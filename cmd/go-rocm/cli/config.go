package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
serve --config FILE" does before it starts llama-server: it checks every value,
reads the headers of the models, the keys and the certificate, plans the memory,
and, if there are server-args, has llama-server parse them. Every mistake is
reported with its line, and the exit status is 78 if the file needs a change; serve
fails with the same text and status. The check needs the rights of the service: run
it as the user go-rocm.`,
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
