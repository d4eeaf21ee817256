package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// TryArgs lets the program itself check its command line, and does not start it.
func TestTryArgs(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		says string // empty: accepted
	}{
		{[]string{"--ctx-size", "512", "--log-file", os.DevNull}, ""},
		{[]string{"--ctx-size", "many"}, `--ctx-size`},
		{[]string{"--no-such-flag"}, "--no-such-flag"},
		{[]string{"stray"}, "stray"},
		{[]string{"--grammar-file", fifo}, "named pipe"},
		{[]string{"--grammar-file", "fifo"}, "named pipe"}, // relative to the program's directory
		{[]string{"--grammar-file=" + fifo}, "named pipe"},
		{[]string{"--api-key", "x"}, "set by the supervisor"},
	} {
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.Args, spec.Dir = tt.args, dir
		err := TryArgs(t.Context(), spec)
		if tt.says == "" {
			if err != nil {
				t.Errorf("%q: %v", tt.args, err)
			}
			continue
		}
		if !errors.Is(err, ErrBadArgument) && !errors.Is(err, ErrInvalidSpec) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v; want an error that says %q", tt.args, err, tt.says)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error has several lines: %v", tt.args, err)
		}
	}
}
