//go:build unix

package modelstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// Two processes that want one blob write it once.
func TestPartialIsExclusive(t *testing.T) {
	dir := t.TempDir()
	first, second := writer(t, openStore(t, dir)), writer(t, openStore(t, dir))
	key := digest("content")
	p, err := first.Partial(t.Context(), key, key, 7)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := second.Partial(ctx, key, key, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("while the first has it: %v", err)
	}
	came := make(chan *modelstore.Partial, 1)
	failed := make(chan error, 1)
	go func() {
		p, err := second.Partial(t.Context(), key, key, 7)
		came <- p
		failed <- err
	}()
	if _, err := p.File.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(key); err != nil {
		t.Fatal(err)
	}
	if p, err := <-came, <-failed; p != nil || err != nil {
		t.Errorf("the second got %+v, %v", p, err)
	}
	if left := list(t, filepath.Join(dir, "partial")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := first.Partial(t.Context(), "../x", "", -1); err == nil {
		t.Error("a key above the directory")
	}
}

func TestPartialIsContinued(t *testing.T) {
	s := openStore(t, t.TempDir())
	w := writer(t, s)
	p, err := w.Partial(t.Context(), "k", "", -1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.File.WriteString("half")
	if err := errors.Join(err, p.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	w = writer(t, s)
	p, err = w.Partial(t.Context(), "k", "", -1)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := p.File.Stat(); err != nil || info.Size() != 4 {
		t.Errorf("%v, %v", info, err)
	}
	if err := errors.Join(p.Discard(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if left := list(t, filepath.Join(s.Dir(), "partial")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A complete file that cannot become a blob, as on a full disk, is continued later: its
// owner can still write it.
func TestPartialOutlivesAFailedCommit(t *testing.T) {
	s := openStore(t, t.TempDir())
	w := writer(t, s)
	key := digest("content")
	blobs := filepath.Join(s.Dir(), "blobs")
	if err := os.Rename(blobs, blobs+"-away"); err != nil {
		t.Fatal(err)
	}
	p, err := w.Partial(t.Context(), key, "", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.File.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(key); err == nil {
		t.Fatal("a blob without its directory")
	}
	info, err := os.Stat(filepath.Join(s.Dir(), "partial", key))
	if err != nil || info.Mode()&0o200 == 0 || info.Size() != 7 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := os.Rename(blobs+"-away", blobs); err != nil {
		t.Fatal(err)
	}
	if p, err = w.Partial(t.Context(), key, key, 7); err == nil {
		err = p.Commit(key)
	}
	if err != nil || !s.Has(key, 7) {
		t.Errorf("continued: %v", err)
	}
	if info, err := os.Stat(s.BlobPath(key)); err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("the blob: %v, %v", info, err)
	}
}
