// Package cli is the command tree of go-rocm: flags in, text or JSON out. The
// main package only calls [Main]; the tree is separate so that man pages and
// completions are generated from it.
//
// The commands are thin. Package rocm and the packages under runtime do the work;
// a command turns flags into their settings and their results into text, or into
// JSON with --json. Text may change between versions. JSON only gains fields.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Exit statuses other than 0.
const (
	exitFailure = 1
	exitUsage   = 2
	exitPartly  = 3  // selftest: nothing failed, and not everything was tested
	exitConfig  = 78 // EX_CONFIG of sysexits.h
	exitPipe    = 128 + int(syscall.SIGPIPE)
)

// errUsage marks a mistake on the command line.
var errUsage = errors.New("usage")

// New returns the command tree.
func New() *cobra.Command { return newRoot("") }

// Main runs the command line and returns the exit status.
func Main(version string, args []string) int {
	root := newRoot(version)
	root.InitDefaultCompletionCmd(args...)
	markUsageErrors(root)
	root.SetArgs(args)
	err := rejectUnknownCommand(root, args)
	if err == nil {
		err = root.ExecuteContext(context.Background())
	}
	if err == nil {
		return 0
	}
	var ended *signalError
	if errors.As(err, &ended) {
		return ended.raise()
	}
	if errors.Is(err, errBrokenPipe) {
		return exitPipe
	}
	// The text may quote untrusted files.
	text := sanitizeTerminal(strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
	_, _ = fmt.Fprintf(root.ErrOrStderr(), "go-rocm: %s\n", text)
	switch {
	case errors.Is(err, errUsage):
		_, _ = fmt.Fprintln(root.ErrOrStderr(), "see: go-rocm help")
		return exitUsage
	case errors.Is(err, errConfig):
		return exitConfig
	case errors.Is(err, errIncomplete):
		return exitPartly
	}
	return exitFailure
}

func newRoot(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "go-rocm",
		Short: "run language models on AMD GPUs",
		Long: `go-rocm runs GGUF models with llama.cpp's llama-server on AMD GPUs of the
RDNA 3 family, in the terminal or as an OpenAI-compatible server. It includes and
supervises llama-server, and needs no ROCm on the machine. Without a GPU, models
run on the CPU.

Environment variables:

    ` + locate.EnvBundle + `       bundle to use, a directory or a packed file
    ` + extract.CacheEnv + `        directory for unpacked bundles and sockets
    ` + modelstore.EnvDir + `       directory of pulled models
    ` + gateway.EnvAPIKey + `      API key that clients of serve must send
    ` + supervise.EnvInherit + `  further variables for llama-server to inherit, separated
                        by commas; it inherits only the locale, the user's
                        directories, and the settings of ROCm, Vulkan, Mesa and
                        OpenMP`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          showHelp,
	}
	root.PersistentFlags().BoolP("verbose", "v", false, "log details to stderr, including llama-server's own output")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(
		runCommand(), serveCommand(), versionCommand(version), verifyCommand(),
		gpusCommand(), fitCommand(), benchCommand(), pullCommand(), importCommand(), modelsCommand(), doctorCommand(), selftestCommand(version), cacheCommand(), configCommand(),
		psCommand(), topCommand(), loadCommand(), unloadCommand(),
	)
	root.InitDefaultHelpCmd()
	rejectUnknownHelpTopics(root)
	return root
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// rejectUnknownCommand fails if args name a command that does not exist. cobra
// checks that too, but only after --help, which then prints the help of the parent
// command and exits with 0.
func rejectUnknownCommand(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || !cmd.HasSubCommands() {
		return nil //nolint:nilerr // Execute reports the error
	}
	for _, arg := range rest {
		switch {
		case arg == "--" || arg == cobra.ShellCompRequestCmd || arg == cobra.ShellCompNoDescRequestCmd:
			return nil
		case strings.Contains(cmd.Use, "["): // it has arguments besides its subcommands
			return nil
		case !strings.HasPrefix(arg, "-"): // the other commands with subcommands have no flags with values
			return fmt.Errorf("%w: %sunknown command %q for %q", errUsage, commandPath(cmd), arg, cmd.CommandPath())
		}
	}
	return nil
}

// rejectUnknownHelpTopics makes "help NAME" fail for an unknown NAME. cobra
// prints the help of the parent command and exits with 0.
func rejectUnknownHelpTopics(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "help" {
			continue
		}
		c.Args = func(_ *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("%q has no command %q", found.CommandPath(), rest[0])
			}
			return err
		}
	}
}

// markUsageErrors wraps the errors of wrong arguments and of conflicting flags in
// errUsage, for c and its subcommands.
func markUsageErrors(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markUsageErrors(sub)
	}
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := cmp.Or(check(cmd, args), cmd.ValidateFlagGroups()); err != nil {
			return fmt.Errorf("%w: %s%w", errUsage, commandPath(cmd), err)
		}
		return nil
	}
}

// commandPath returns the prefix of cmd's error messages: its path below the
// root, with a colon.
func commandPath(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return ""
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path + ": "
}

// logger logs to stderr: everything with --verbose, otherwise warnings.
func logger(cmd *cobra.Command) *slog.Logger { return loggerAt(cmd, slog.LevelWarn) }

// loggerAt logs to stderr: everything with --verbose, otherwise from level up.
func loggerAt(cmd *cobra.Command, level slog.Level) *slog.Logger {
	if verbose(cmd) {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}

func verbose(cmd *cobra.Command) bool {
	v, err := cmd.Flags().GetBool("verbose")
	return err == nil && v
}
