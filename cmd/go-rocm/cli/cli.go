// Package cli is the command tree of go-rocm. It is a package of its own so
// that man pages and completions can be made from it.
//
// The commands are thin: pkg/rocm does the work, and each command turns flags
// into its settings and results into text, or into JSON with --json. Text may
// change between versions, JSON only grows.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses beside 0.
const (
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78 // EX_CONFIG of sysexits.h
)

// errUsage marks a mistake on the command line.
var errUsage = errors.New("usage")

// New is the command tree.
func New() *cobra.Command { return tree("") }

// Main runs the command line and gives the exit status.
func Main(version string, args []string) int {
	root := tree(version)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	text := strings.TrimPrefix(err.Error(), errUsage.Error()+": ")
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
	for _, c := range append(root.Commands(), root) {
		if check := c.Args; check != nil {
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return fmt.Errorf("%w: %s: %w", errUsage, cmd.Name(), err)
				}
				return nil
			}
		}
	}
	return root
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
