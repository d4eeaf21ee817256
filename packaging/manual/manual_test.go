package manual_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/manual"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "prog", Short: "does things", Long: "Prog does things.\n\nIt does them well."}
	serve := &cobra.Command{Use: "serve MODEL", Short: "serves", Run: func(*cobra.Command, []string) {}}
	serve.Flags().String("listen", "127.0.0.1:8080", "where to listen")
	hidden := &cobra.Command{Use: "secret", Hidden: true, Run: func(*cobra.Command, []string) {}}
	root.AddCommand(serve, hidden)
	return root
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWriteIsReproducible(t *testing.T) {
	o := manual.Options{Version: "1.2.3", Date: time.Date(2026, 3, 4, 23, 30, 0, 0, time.FixedZone("", -3600))}
	dir := t.TempDir()
	if err := manual.Write(dir, newRoot(), o); err != nil {
		t.Fatal(err)
	}
	got := read(t, dir)
	var names []string
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{
		"bash/prog", "fish/prog.fish",
		"man1/prog-completion-bash.1", "man1/prog-completion-fish.1",
		"man1/prog-completion-powershell.1", "man1/prog-completion-zsh.1",
		"man1/prog-completion.1", "man1/prog-serve.1", "man1/prog.1", "zsh/_prog",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, part := range []string{`"Mar 2026" "prog 1.2.3" "User Commands"`, "listen", "where to listen"} {
		if !strings.Contains(got["man1/prog-serve.1"], part) {
			t.Errorf("page of serve lacks %q:\n%s", part, got["man1/prog-serve.1"])
		}
	}

	second := t.TempDir()
	if err := manual.Write(second, newRoot(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, read(t, second)); diff != "" {
		t.Errorf("second run differs:\n%s", diff)
	}
}

func TestBashLoadsCompletion(t *testing.T) {
	dir := t.TempDir()
	if err := manual.Write(dir, newRoot(), manual.Options{Version: "1.2.3", Date: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `. "$1" && complete -p prog`, "bash", filepath.Join(dir, "bash", "prog")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "__start_prog") {
		t.Errorf("bash: %v\n%s", err, out)
	}
}

func TestWriteRejectsIncompleteInput(t *testing.T) {
	complete := manual.Options{Version: "1.2.3", Date: time.Unix(1, 0)}
	undescribed := newRoot()
	undescribed.AddCommand(&cobra.Command{Use: "mute", Run: func(*cobra.Command, []string) {}})
	for name, tc := range map[string]struct {
		root *cobra.Command
		o    manual.Options
		want string
	}{
		"no version":     {newRoot(), manual.Options{Date: complete.Date}, "version"},
		"no date":        {newRoot(), manual.Options{Version: "1"}, "date"},
		"no description": {undescribed, complete, "short description"},
	} {
		t.Run(name, func(t *testing.T) {
			err := manual.Write(t.TempDir(), tc.root, tc.o)
			if !errors.Is(err, manual.ErrCommand) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %q", err, tc.want)
			}
		})
	}
}
