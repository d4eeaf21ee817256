package deb

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Cancelling the context while nfpm packs a file stops it: the next file is not
// opened. Opening the two named pipes shows when each is packed.
func TestWriteStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), t.TempDir()
	pipe := func(name string) string {
		at := filepath.Join(dir, name)
		if err := syscall.Mkfifo(at, 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	first, second := pipe("first"), pipe("second")
	p := &pkg{name: "thing", synopsis: "a thing", entries: []entry{
		{path: "/usr/lib/thing/1", from: first, mode: 0o644}, {path: "/usr/lib/thing/2", from: second, mode: 0o644},
	}}
	o := Options{Maintainer: "A. Person <person@example.org>", Epoch: time.Unix(1790556072, 0).UTC(), OutDir: out}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := p.write(ctx, o, Version{Core: "1.0.0", Revision: "1"})
		ended <- err
	}()

	w, err := os.OpenFile(first, os.O_WRONLY, 0) // waits for a reader
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for left := []string{""}; len(left) > 0; { // until the names are removed
		if left, err = filepath.Glob(filepath.Join(out, ".deb-*", "entry-*")); err != nil {
			t.Fatal(err)
		}
	}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		if w, err := os.OpenFile(second, os.O_WRONLY, 0); err == nil {
			_ = w.Close()
		}
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-opened:
		t.Error("the next file was opened")
		if err := <-ended; err == nil {
			t.Error("the package was written")
		}
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if r, err := os.OpenFile(second, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil { // unblocks the goroutine above
		<-opened
		_ = r.Close()
	}
}
