package cli

import (
	"os/exec"
	"strings"
	"testing"
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
