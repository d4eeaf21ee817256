// Package manual generates the man pages and the shell completions of a command
// from its command tree, so that they always agree with --help.
//
// It only writes files. Package deb decides where they are installed.
package manual

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// ErrCommand reports a command tree, or options, that no manual can be generated
// from.
var ErrCommand = errors.New("manual")

// Options are the contents of the pages that the command tree does not have.
type Options struct {
	// Version of the program, for the footer of each page.
	Version string
	// Date for the footer of each page. Its day in UTC is used.
	Date time.Time
}

// Write writes man1/*.1 (the root command and every visible subcommand),
// bash/NAME, zsh/_NAME and fish/NAME.fish to dir. It adds the help and completion
// commands to root, which cobra otherwise adds when the program runs, so that
// they have pages as well.
func Write(dir string, root *cobra.Command, o Options) error {
	if o.Version == "" || o.Date.IsZero() {
		return fmt.Errorf("%w: version or date is empty: set both", ErrCommand)
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	if err := requireDescriptions(root); err != nil {
		return err
	}
	if err := writePages(dir, root, o); err != nil {
		return err
	}
	name := root.Name()
	for _, c := range []struct {
		path string
		gen  func(io.Writer) error
	}{
		{filepath.Join("bash", name), func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{filepath.Join("zsh", "_"+name), root.GenZshCompletion},
		{filepath.Join("fish", name+".fish"), func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
	} {
		var b bytes.Buffer
		if err := c.gen(&b); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCommand, c.path, err)
		}
		if err := writeFile(filepath.Join(dir, c.path), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// requireDescriptions rejects a command without a short description, whose page
// would be a bare list of flags.
func requireDescriptions(cmd *cobra.Command) error {
	if cmd.Short == "" && !cmd.Hidden {
		return fmt.Errorf("%w: command %q has no short description", ErrCommand, cmd.CommandPath())
	}
	for _, sub := range cmd.Commands() {
		if err := requireDescriptions(sub); err != nil {
			return err
		}
	}
	return nil
}

// writePages writes the pages of cmd and its subcommands.
func writePages(dir string, cmd *cobra.Command, o Options) error {
	date := o.Date.UTC()
	var b bytes.Buffer
	err := doc.GenMan(cmd, &doc.GenManHeader{
		Section: "1",
		Date:    &date,
		Source:  cmd.Root().Name() + " " + o.Version,
		Manual:  "User Commands",
	}, &b)
	if err != nil {
		return fmt.Errorf("%w: page of %q: %w", ErrCommand, cmd.CommandPath(), err)
	}
	if err := writeFile(filepath.Join(dir, "man1", pageName(cmd)), b.Bytes()); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePages(dir, sub, o); err != nil {
			return err
		}
	}
	return nil
}

// pageName returns the command's path joined with hyphens, as in
// `man go-rocm-serve`.
func pageName(cmd *cobra.Command) string {
	name := cmd.Name()
	for p := cmd.Parent(); p != nil; p = p.Parent() {
		name = p.Name() + "-" + name
	}
	return name + ".1"
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	return nil
}
