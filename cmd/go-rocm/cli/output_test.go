package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrintJSONEscapesControlCharacters(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := printJSON(&b, "a\x1b\x7f\u009bé<"); err != nil || b.String() != `"a\u001b\u007f\u009bé<"`+"\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// What commandLine prints is what bash reads.
func TestCommandLineIsReadByShell(t *testing.T) {
	t.Parallel()
	args := []string{"plain-1.gguf", "", "two words", "it's", `back\slash`, "line\nbreak", "esc\x1b[2J\u009b'\\", "invalid\xff", "ü", "$HOME", "*", "\u202e"}
	line := commandLine(args)
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' }); i >= 0 {
		t.Errorf("unprintable character in %q", line)
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `printf '%s\0' `+line).Output()
	if want := strings.Join(args, "\x00") + "\x00"; err != nil || string(out) != want {
		t.Errorf("%q, %v, from %s", out, err, line)
	}
}

// Without a terminal, a download writes a line every ten per cent, but not more often
// than every ten seconds and not less often than every thirty; a short one writes none.
func TestPullProgressWithoutATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		seconds, bytesPerSecond int
		want                    []string // the shares
	}{
		"short": {9, 100, nil},
		"fast":  {100, 10, []string{"10", "20", "30", "40", "50", "60", "70", "80", "90", "100"}},
		"slow":  {130, 1, []string{"3", "6", "9", "12"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			now := time.Unix(0, 0)
			p := &pullProgress{line: &progressLine{w: &out}, w: &out, now: func() time.Time { return now }, written: now}
			for second := 1; second <= c.seconds; second++ {
				now = now.Add(time.Second)
				p.show("m.gguf", int64(second*c.bytesPerSecond), 1000)
			}
			p.clear()
			var got []string
			for line := range strings.Lines(out.String()) {
				share, rest, ok := strings.Cut(strings.TrimPrefix(line, "m.gguf: "), " % of 1000 bytes")
				if !ok || strings.ContainsAny(line, "\r\x1b") || !strings.Contains(rest, " MB/s, ") {
					t.Errorf("%q", line)
				}
				got = append(got, share)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s\n%s", d, out.String())
			}
		})
	}
}
