//go:build unix

package modelstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

func TestPruneKeepsNamesLeasesAndWriters(t *testing.T) {
	dir := t.TempDir()
	s, other := openStore(t, dir), openStore(t, dir) // other as another process would
	put(t, s, "kept", "kept")
	leased := put(t, s, "leased", "leased", "shared")
	put(t, s, "gone", "gone", "shared")
	lease, err := other.Acquire(leased)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Remove("leased"), s.Remove("gone")); err != nil {
		t.Fatal(err)
	}
	w := writer(t, other)
	if _, err := s.Prune(false); !errors.Is(err, modelstore.ErrBusy) {
		t.Errorf("while a writer is open: %v", err)
	}
	p, err := w.Partial(t.Context(), "k", "", -1)
	if err := errors.Join(err, p.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Prune(false); err != nil || got != (modelstore.Pruned{Files: 1, Bytes: 4}) {
		t.Errorf("with a lease: %+v, %v", got, err)
	}
	if raw, err := os.ReadFile(s.Path(leased, leased.Files[1])); err != nil || string(raw) != "shared" {
		t.Errorf("the leased model: %q, %v", raw, err)
	}
	if err := lease.Release(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Prune(true); err != nil || got != (modelstore.Pruned{Files: 3, Bytes: 12}) {
		t.Errorf("without a lease: %+v, %v", got, err)
	}
	if _, err := s.Acquire(leased); !errors.Is(err, modelstore.ErrNotFound) {
		t.Errorf("a lease on a removed model: %v", err)
	}
	for sub, want := range map[string]int{"blobs": 1, "snapshots": 1, "names": 1, "partial": 0} {
		if left := list(t, filepath.Join(dir, sub)); len(left) != want {
			t.Errorf("%s: %q", sub, left)
		}
	}
}

// A record that cannot be read may name any blob, so nothing is pruned.
func TestPruneStopsAtADamagedRecord(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := put(t, s, "n", "content")
	path := filepath.Join(s.Dir(), "names", "n.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(true); !errors.Is(err, modelstore.ErrRecord) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if !s.Has(r.Files[0].SHA256, -1) {
		t.Error("the blob is gone")
	}
	put(t, s, "m", "content")
	if all, err := s.List(); len(all) != 1 || !errors.Is(err, modelstore.ErrRecord) {
		t.Errorf("%+v, %v", all, err)
	}
}
