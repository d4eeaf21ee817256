package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// printJSON writes v indented. It also escapes the control characters that JSON
// allows in strings, DEL and C1, which some terminals obey.
func printJSON(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range b.String() {
		if r >= 0x7f && r <= 0x9f {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// stdout returns the writer for a command's text, which quotes files, metadata and
// paths of strangers: it removes control codes. Text for programs, such as JSON and
// answers in a pipe, is written to cmd.OutOrStdout().
func stdout(cmd *cobra.Command) io.Writer { return sanitizingWriter{cmd.OutOrStdout()} }

// sanitizingWriter applies sanitizeTerminal to what is written to w. Each Write must
// contain whole characters, as those of fmt and tabwriter do.
type sanitizingWriter struct{ w io.Writer }

// Write implements io.Writer.
func (s sanitizingWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, sanitizeTerminal(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// commandLine formats arguments for a shell: those with characters that a shell
// treats specially, or that a terminal does not print, are quoted.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		switch safe := func(r rune) bool {
			return r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("-_=+,./:@%", r)
		}; {
		case arg != "" && strings.IndexFunc(arg, func(r rune) bool { return !safe(r) }) < 0:
			quoted[i] = arg
		case strings.IndexFunc(arg, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
			quoted[i] = "$" + shellEscape(arg)
		default:
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// shellEscape returns arg for $'…' of bash, with every unprintable byte escaped.
func shellEscape(arg string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i, r := range arg {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r != utf8.RuneError && unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			_, width := utf8.DecodeRuneInString(arg[i:])
			for _, c := range []byte(arg[i : i+width]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
	}
	return b.String() + "'"
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

// pullProgress shows how a download proceeds: on a terminal in one line that is
// overwritten, elsewhere, as in the journal or in the log of a CI, in a line now and
// then.
type pullProgress struct {
	line *progressLine
	w    io.Writer
	now  func() time.Time

	// The last line: when it was written, and for which share of the whole, in per cent.
	written time.Time
	percent float64

	speedFrom              time.Time
	speedBytes, speedTotal int64
}

const (
	// lineEvery is the longest time without a line; a download that takes less writes
	// none.
	lineEvery = 30 * time.Second
	// lineStep is the share, in per cent, after which a line comes earlier, but not
	// before lineAfter.
	lineStep  = 10
	lineAfter = 10 * time.Second
)

func newPullProgress(cmd *cobra.Command) *pullProgress {
	return &pullProgress{line: newProgressLine(cmd), w: cmd.ErrOrStderr(), now: time.Now, written: time.Now()}
}

// show is the Progress of a pull.Puller.
func (p *pullProgress) show(file string, done, total int64) {
	now := p.now()
	percent := 100 * float64(done) / float64(max(total, 1))
	text := fmt.Sprintf("%s: %.0f %% of %s%s", truncate(file), percent, formatSize(total), p.speed(now, done, total))
	if p.line.enabled {
		p.line.show("%s", text)
		return
	}
	if percent < p.percent { // of the next model
		p.percent = percent
	}
	passed := now.Sub(p.written)
	if passed >= lineEvery || passed >= lineAfter && percent-p.percent >= lineStep {
		p.written, p.percent = now, percent
		_, _ = fmt.Fprintln(p.w, text)
	}
}

// clear removes the line on a terminal.
func (p *pullProgress) clear() { p.line.clear() }

// speed returns the speed of the last seconds and the time that is left, as text.
func (p *pullProgress) speed(now time.Time, done, total int64) string {
	const window = 10 * time.Second
	elapsed := now.Sub(p.speedFrom)
	if p.speedTotal != total || done < p.speedBytes || elapsed > 4*window {
		p.speedFrom, p.speedBytes, p.speedTotal = now, done, total
		return ""
	}
	if elapsed < time.Second || done == p.speedBytes {
		return ""
	}
	perSecond := float64(done-p.speedBytes) / elapsed.Seconds()
	left := time.Duration(float64(total-done)/perSecond) * time.Second
	if elapsed > window { // forget the first half of the window
		p.speedFrom, p.speedBytes = now.Add(-elapsed/2), done-(done-p.speedBytes)/2
	}
	return fmt.Sprintf(", %.1f MB/s, %s left", perSecond/1e6, left)
}
