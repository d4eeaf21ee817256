package build

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
)

// Publish waits until no build can replace the delivery.
func TestPublishWaitsForABuild(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	t.Setenv("GOROCM_CACHE", t.TempDir())
	writeFile(t, filepath.Join(root, "go.mod"), "module forge.lthn.ai/core/go-rocm\n")
	if err := os.MkdirAll(filepath.Join(root, payloadDir), 0o755); err != nil {
		t.Fatal(err)
	}
	building := flock.New(filepath.Join(root, payloadDir), flock.SetFlag(os.O_RDONLY))
	if err := building.Lock(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func(was *os.File) { os.Stderr = was }(os.Stderr)
	os.Stderr = w
	done := make(chan error, 1)
	go func() {
		err := Publish(t.TempDir())
		done <- errors.Join(err, w.Close())
	}()
	printed, _ := bufio.NewReader(r).ReadString('\n')
	if printed != "waiting for another build in this checkout to finish\n" {
		t.Errorf("printed %q", printed)
	}
	if err := building.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "nothing is published") {
		t.Errorf("without a delivery: %v", err)
	}
}

// A step that runs beside others writes to its own output, and to no terminal.
func TestSessionWritesToTheStepsOutput(t *testing.T) {
	t.Setenv("GOROCM_CACHE", t.TempDir())
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out strings.Builder
	step := s.writingTo(&out)
	w, err := step.Recipe.Progress.Open("compile")
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprint(step.Recipe.Log, "recipe\n")
	if err := errors.Join(err, step.printf("session"), w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"compile: log in ", "recipe\n", "session\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q: %q", want, &out)
		}
	}
	if s.Out != os.Stderr || s.Recipe.Log != os.Stderr {
		t.Error("the first session writes elsewhere")
	}
	if step.recompressor == nil || step.Settings != s.Settings {
		t.Error("the sessions differ in more")
	}
}
