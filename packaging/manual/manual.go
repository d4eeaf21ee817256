// Package manual writes what people read about the command and what their
// shells know of it: man pages and completions, from the same command tree that
// answers --help, so that they cannot say something else.
//
// It writes files and installs none: where they go is packaging/deb's to say.
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

// ErrCommand says that the command tree cannot be written up.
var ErrCommand = errors.New("manual")

// Options say what stands in the pages beside the commands.
type Options struct {
	// Version of the program, shown at the foot of each page.
	Version string
	// Date shown at the foot of each page; its day in UTC is used.
	Date time.Time
}

// Write fills dir with man1/*.1 (the root command and every subcommand that is
// not hidden), bash/NAME, zsh/_NAME and fish/NAME.fish. The root command is
// changed on the way: it gets the completion command that programs have when
// they run, so that this one is written up as well.
func Write(dir string, root *cobra.Command, o Options) error {
	if o.Version == "" || o.Date.IsZero() {
		return fmt.Errorf("%w: version or date is empty: give both", ErrCommand)
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	if err := checkHelp(root); err != nil {
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

// checkHelp refuses a command that says nothing of itself: its page would be a
// bare list of flags.
func checkHelp(cmd *cobra.Command) error {
	if cmd.Short == "" && !cmd.Hidden {
		return fmt.Errorf("%w: command %q has no short description", ErrCommand, cmd.CommandPath())
	}
	for _, sub := range cmd.Commands() {
		if err := checkHelp(sub); err != nil {
			return err
		}
	}
	return nil
}

// writePages writes a page for cmd and all below it.
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

// pageName is the command's path with hyphens, as `man go-rocm-serve` asks it.
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
