package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// printJSON writes v indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// formatSize formats a number of bytes in a binary unit.
func formatSize[T int64 | uint64](n T) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

// maxCellRunes limits a model's metadata string in a table.
const maxCellRunes = 80

// printable returns s with every unprintable character, line breaks included,
// replaced by U+FFFD, so that it stays on one line of a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// truncate is printable, cut after maxCellRunes characters.
func truncate(s string) string {
	n := 0
	for i := range s {
		if n++; n > maxCellRunes {
			return printable(s[:i]) + "…"
		}
	}
	return printable(s)
}

// sanitizeTerminal returns a text of several lines without the control codes that
// could drive a terminal: carriage returns are dropped, other control characters
// become U+FFFD.
func sanitizeTerminal(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// isTerminal reports whether w is a file open on a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progressLine is one line of progress that is overwritten in place. It is drawn
// on terminals only, and not with --verbose.
type progressLine struct {
	w       io.Writer
	enabled bool
}

func newProgressLine(cmd *cobra.Command) *progressLine {
	w := cmd.ErrOrStderr()
	return &progressLine{w: w, enabled: isTerminal(w) && !verbose(cmd)}
}

func (p *progressLine) show(format string, args ...any) {
	if p.enabled {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

func (p *progressLine) clear() { p.show("") }

// attach makes the line show how unpacking and loading with s proceed.
func (p *progressLine) attach(s *rocm.Settings) {
	s.Progress = func(l rocm.LoadProgress) {
		switch l.Stage {
		case rocm.StageUnpack:
			p.show("unpacking llama-server: %.0f %%", 100*l.Done)
		case rocm.StageStart:
			p.show("starting llama-server")
		case rocm.StageLoad:
			p.show("loading the model: %.0f %%", 100*l.Done)
		}
	}
	s.OnEvent = func(e supervise.Event) {
		if e.To != supervise.Starting && e.To != supervise.Loading {
			p.clear()
		}
	}
}
