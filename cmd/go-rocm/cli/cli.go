// Package cli is the command tree of go-rocm. It is a package of its own so
// that man pages and completions can be made from it.
//
// The commands are thin: package rocm does the work, and each command turns flags
// into its settings and results into text, or into JSON with --json. Text may
// change between versions, JSON only grows.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses beside 0.
const (
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78 // EX_CONFIG of sysexits.h
	exitPipe    = 128 + int(syscall.SIGPIPE)
)

// errUsage marks a mistake on the command line.
var errUsage = errors.New("usage")

// New is the command tree.
func New() *cobra.Command { return tree("") }

// Main runs the command line and gives the exit status.
func Main(version string, args []string) int {
	root := tree(version)
	root.InitDefaultCompletionCmd(args...)
	markUsage(root)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	var ended *signalError
	if errors.As(err, &ended) {
		return ended.die()
	}
	if errors.Is(err, errEnough) {
		return exitPipe
	}
	text := harmless(strings.TrimPrefix(err.Error(), errUsage.Error()+": ")) // it may quote files of strangers
	_, _ = fmt.Fprintf(root.ErrOrStderr(), "go-rocm: %s\n", text)
	if errors.Is(err, errUsage) {
		_, _ = fmt.Fprintln(root.ErrOrStderr(), "see: go-rocm help")
		return exitUsage
	}
	if errors.Is(err, errConfig) {
		return exitConfig
	}
	return exitFailure
}

func tree(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "go-rocm",
		Short: "run language models on AMD GPUs",
		Long: `go-rocm runs GGUF models with llama.cpp's llama-server on AMD GPUs of the
RDNA 3 family, in the terminal or as an OpenAI-compatible server. The program
brings llama-server along, supervises it, and needs no ROCm on the machine.
Without a GPU, models run on the CPU.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolP("verbose", "v", false, "tell on stderr what happens, with llama-server's own output")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(
		runCommand(), serveCommand(), versionCommand(version), verifyCommand(),
		gpusCommand(), fitCommand(), modelsCommand(), doctorCommand(), cacheCommand(), configCommand(),
	)
	root.InitDefaultHelpCmd()
	strictHelp(root)
	return root
}

// strictHelp has "help NAME" refuse a name that there is not, which cobra answers
// with the help of the command above it and status 0.
func strictHelp(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "help" {
			continue
		}
		c.Args = func(_ *cobra.Command, args []string) error {
			found, left, err := root.Find(args)
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%q has no command %q", found.CommandPath(), left[0])
			}
			return err
		}
	}
}

// markUsage makes wrong arguments, and flags that do not go together, an errUsage
// of c and all below it.
func markUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := cmp.Or(check(cmd, args), cmd.ValidateFlagGroups()); err != nil {
			return fmt.Errorf("%w: %s%w", errUsage, below(cmd), err)
		}
		return nil
	}
}

// below is how a command is named in what concerns it.
func below(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return ""
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path + ": "
}

// logger writes to stderr: everything with --verbose, else warnings.
func logger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelWarn
	if verbose, err := cmd.Flags().GetBool("verbose"); err == nil && verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}

// printJSON writes v indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// size prints bytes in the binary unit that people use.
func size[T int64 | uint64](n T) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

// isTerminal reports whether f is a terminal, where progress may be drawn.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isTTY(int(f.Fd()))
}
