package build

import (
	"bufio"
	"errors"
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
