//go:build linux

package pull_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
)

func sumOf(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func mustAll(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// hubCache writes the cache of the hub's tools, with links to blobs.
func hubCache(t *testing.T, h *fakehub.Hub) string {
	t.Helper()
	dir := t.TempDir()
	repoDir := filepath.Join(dir, "models--o--r--x")
	snapshot := filepath.Join(repoDir, "snapshots", fakehub.Commit)
	mustAll(t, os.MkdirAll(snapshot, 0o700), os.MkdirAll(filepath.Join(repoDir, "blobs"), 0o700))
	for _, name := range []string{"m-Q8_0.gguf", "mmproj-m-F16.gguf"} {
		from := filepath.Join(h.Dir, "o/r", name)
		sum := sumOf(t, from)
		mustAll(t, os.Link(from, filepath.Join(repoDir, "blobs", sum)), os.Symlink("../../blobs/"+sum, filepath.Join(snapshot, name)))
	}
	mustAll(t, os.Symlink("../../blobs/gone", filepath.Join(snapshot, "gone-Q4_0.gguf")))
	return dir
}

func lmStudioCache(t *testing.T, h *fakehub.Hub) string {
	t.Helper()
	dir := t.TempDir()
	mustAll(t, os.MkdirAll(filepath.Join(dir, "o/r"), 0o700), os.Link(filepath.Join(h.Dir, "o/r/m-Q4_K_M.gguf"), filepath.Join(dir, "o/r/m-Q4_K_M.gguf")))
	return dir
}

func ollamaCache(t *testing.T, h *fakehub.Hub) string {
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join(h.Dir, "o/r/m-Q8_0.gguf")
	info, err := os.Stat(from)
	sum := sumOf(t, from)
	manifest := filepath.Join(dir, "manifests/registry.test/library/m/8b")
	raw, jerr := json.Marshal(map[string]any{"layers": []any{map[string]any{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + sum, "size": info.Size()}}})
	mustAll(t, err, jerr, os.MkdirAll(filepath.Dir(manifest), 0o700), os.MkdirAll(filepath.Join(dir, "blobs"), 0o700), os.WriteFile(manifest, raw, 0o600),
		os.Link(from, filepath.Join(dir, "blobs", "sha256-"+sum)), os.WriteFile(filepath.Join(dir, "manifests", ".DS_Store"), nil, 0o600))
	return dir
}

// The models of other programs' caches are used without a second copy.
func TestImportUsesOtherCaches(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	for name, c := range map[string]struct {
		dir  string
		want []string
	}{
		"hub":       {hubCache(t, h), []string{"hf:o/r--x:Q8_0 " + fakehub.Commit + " true m-Q8_0.gguf,mmproj-m-F16.gguf"}},
		"LM Studio": {lmStudioCache(t, h), []string{"hf:o/r:Q4_K_M  false m-Q4_K_M.gguf"}},
		"ollama":    {ollamaCache(t, h), []string{"oci:registry.test/library/m:8b digest true model.gguf"}},
		"empty":     {t.TempDir(), nil},
	} {
		p, s := newPuller(t, h), newStore(t, t.TempDir())
		found, err := p.Candidates(c.dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, candidate := range found {
			r, how, err := p.Import(t.Context(), s, candidate)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !slices.Contains([]modelstore.How{modelstore.HowReflink, modelstore.HowHardLink}, how) {
				t.Errorf("%s: the file is %s", name, how)
			}
			var files []string
			for _, f := range r.Files {
				files = append(files, f.Name)
			}
			revision := r.Revision
			if strings.HasPrefix(revision, "sha256:") {
				revision = "digest"
			}
			got = append(got, fmt.Sprintf("%s %s %v %s", r.Name, revision, r.Verified(), strings.Join(files, ",")))
			f, err := gguf.Open(s.Path(r, r.Files[0]))
			if err != nil {
				t.Fatal(err)
			}
			mustAll(t, f.Close(), s.Verify(t.Context(), r))
			// Removing the model leaves the other program's file alone.
			mustAll(t, s.Remove(r.Name))
			if _, err := s.Prune(true); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(candidate.Paths[0]); err != nil {
				t.Error(err)
			}
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// A file of another disk is referenced. When it is gone, the model is damaged.
func TestImportByReference(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	dir, err := os.MkdirTemp("/dev/shm", "go-rocm-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	raw, err := os.ReadFile(filepath.Join(h.Dir, "o/r/m-Q8_0.gguf"))
	path := filepath.Join(dir, "o/r/m-Q8_0.gguf")
	mustAll(t, err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, raw, 0o600))
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	found, err := p.Candidates(dir)
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	r, how, err := p.Import(t.Context(), s, found[0])
	if err != nil || how != modelstore.HowReference {
		t.Fatalf("%s, %v", how, err)
	}
	if _, how, err := p.Import(t.Context(), s, found[0]); err != nil || how != modelstore.HowStored {
		t.Errorf("again: %s, %v", how, err)
	}
	mustAll(t, s.Verify(t.Context(), r), os.Remove(path))
	if err := s.Verify(t.Context(), r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestImportRejects(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	// A blob of the hub's cache that is damaged.
	dir := hubCache(t, h)
	found, err := p.Candidates(dir)
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	blob, err := filepath.EvalSymlinks(found[0].Paths[0])
	raw, rerr := os.ReadFile(blob)
	mustAll(t, err, rerr)
	raw[len(raw)-1] ^= 1
	mustAll(t, os.Remove(blob), os.WriteFile(blob, raw, 0o600))
	if _, _, err := p.Import(t.Context(), s, found[0]); !errors.Is(err, modelstore.ErrDigest) {
		t.Errorf("damage: %v", err)
	}
	mustAll(t, os.WriteFile(blob, []byte("<html>"), 0o600))
	if _, _, err := p.Import(t.Context(), s, found[0]); !errors.Is(err, gguf.ErrNotGGUF) {
		t.Errorf("a web page: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}
