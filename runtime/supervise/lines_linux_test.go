package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeShell writes a shell script and returns its path.
func writeShell(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLines runs a program in its directory, with the child's environment.
func TestLines(t *testing.T) {
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("SECRET_TOKEN", "x")
	path := writeShell(t, `echo "$1 $EXTRA${SECRET_TOKEN:-, no secret}"; pwd; echo failed >&2; exit $2`)
	for _, c := range []struct {
		status string
		code   int
	}{{"0", 0}, {"3", 3}} {
		var got []string
		err := Lines(t.Context(), Probe{Argv: []string{path}}, []string{"EXTRA=b"}, func(s string) { got = append(got, s) }, "a", c.status)
		if d := cmp.Diff([]string{"a b, no secret", filepath.Dir(path)}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		var exit *ExitError
		if errors.As(err, &exit) != (c.code != 0) || exit != nil && (exit.Code != c.code || !slices.Contains(exit.Log, "failed")) {
			t.Errorf("status %s: %v", c.status, err)
		}
	}
}

// TestLinesEndWithTheContext: the program's descendants end, too.
func TestLinesEndWithTheContext(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	path := writeShell(t, "echo begun; sleep 600")
	if err := Lines(ctx, Probe{Argv: []string{path}}, nil, func(string) { cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestLinesRejects(t *testing.T) {
	if err := Lines(t.Context(), Probe{}, nil, nil); !errors.Is(err, ErrInvalidSpec) {
		t.Errorf("without a program: %v", err)
	}
	if err := Lines(t.Context(), Probe{Argv: []string{"/no/such/program"}}, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is missing: %v", err)
	}
	path := writeShell(t, `while :; do printf 0123456789abcdef0123456789abcdef; done`)
	if err := Lines(t.Context(), Probe{Argv: []string{path}}, nil, func(string) { t.Error("a line") }); err == nil {
		t.Error("an endless line is no error")
	}
}
