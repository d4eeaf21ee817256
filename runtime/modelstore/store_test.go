//go:build unix

package modelstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

func openStore(t *testing.T, dir string) *modelstore.Store {
	t.Helper()
	s, err := modelstore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func writer(t *testing.T, s *modelstore.Store) *modelstore.Writer {
	t.Helper()
	w, err := s.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// add adds the content as a blob, as a download does.
func add(t *testing.T, w *modelstore.Writer, name, role, content string) modelstore.File {
	t.Helper()
	f := modelstore.File{Name: name, Role: role, Size: int64(len(content)), SHA256: digest(content), Verified: true}
	p, err := w.Partial(t.Context(), f.SHA256, f.SHA256, f.Size)
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		return f
	}
	if _, err := p.File.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(p.StatePath, []byte("{}"), 0o600), p.Commit(f.SHA256)); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, s *modelstore.Store, name string, contents ...string) *modelstore.Record {
	t.Helper()
	w := writer(t, s)
	r := modelstore.Record{Name: name}
	for i, c := range contents {
		role := modelstore.RolePart
		if i == 0 {
			role = modelstore.RoleModel
		}
		r.Files = append(r.Files, add(t, w, strings.Repeat("x", i+1)+".gguf", role, c))
	}
	stored, err := w.Put(r)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return stored
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPutGetList(t *testing.T) {
	s := openStore(t, t.TempDir())
	long := "hf:a/" + strings.Repeat("b", 400)
	two := put(t, s, "hf:a/two:Q4_0", "one", "two")
	put(t, s, long, "one")
	got, err := s.Get("hf:a/two:Q4_0")
	if d := cmp.Diff(two, got); err != nil || d != "" || got.Added.IsZero() {
		t.Errorf("%v\n%s", err, d)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != long || all[1].Name != two.Name || all[1].Bytes() != 6 || !all[1].Verified() {
		t.Errorf("%+v, %v", all, err)
	}
	for i, want := range []string{"one", "two"} {
		raw, err := os.ReadFile(s.Path(got, got.Files[i]))
		if err != nil || string(raw) != want {
			t.Errorf("%q, %v", raw, err)
		}
	}
	if dirs := list(t, filepath.Join(s.Dir(), "partial")); len(dirs) != 0 {
		t.Errorf("left in partial: %q", dirs)
	}
	if blobs := list(t, filepath.Join(s.Dir(), "blobs")); len(blobs) != 2 {
		t.Errorf("blobs: %q; equal content is stored once", blobs)
	}
	if _, err := s.Get("hf:a/none"); !errors.Is(err, modelstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.Remove("hf:a/none"); !errors.Is(err, modelstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestPutRejects(t *testing.T) {
	s := openStore(t, t.TempDir())
	w := writer(t, s)
	defer func() { _ = w.Close() }()
	good := add(t, w, "m.gguf", modelstore.RoleModel, "m")
	change := func(f func(*modelstore.File)) modelstore.Record {
		file := good
		f(&file)
		return modelstore.Record{Name: "n", Files: []modelstore.File{file}}
	}
	for name, r := range map[string]modelstore.Record{
		"no name":     {Files: []modelstore.File{good}},
		"no files":    {Name: "n"},
		"above":       change(func(f *modelstore.File) { f.Name = ".." }),
		"directory":   change(func(f *modelstore.File) { f.Name = "a/m.gguf" }),
		"absolute":    change(func(f *modelstore.File) { f.Name = "/m.gguf" }),
		"digest":      change(func(f *modelstore.File) { f.SHA256 = "../../x" }),
		"upper case":  change(func(f *modelstore.File) { f.SHA256 = strings.ToUpper(f.SHA256) }),
		"size":        change(func(f *modelstore.File) { f.Size = 0 }),
		"role":        change(func(f *modelstore.File) { f.Role = "x" }),
		"no model":    change(func(f *modelstore.File) { f.Role = modelstore.RoleProjector }),
		"two models":  {Name: "n", Files: []modelstore.File{good, good}},
		"no blob":     change(func(f *modelstore.File) { f.SHA256 = digest("other") }),
		"other size":  change(func(f *modelstore.File) { f.Size = 5 }),
		"listed last": {Name: "n", Files: []modelstore.File{{Name: "p.gguf", Role: modelstore.RolePart, Size: 1, SHA256: good.SHA256}, good}},
	} {
		if _, err := w.Put(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if names := list(t, filepath.Join(s.Dir(), "names")); len(names) != 0 {
		t.Errorf("stored %q", names)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := put(t, s, "n", "first part", "second part")
	if err := s.Verify(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	blob := s.BlobPath(r.Files[1].SHA256)
	if err := errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, []byte("Second part"), 0o600)); err != nil {
		t.Fatal(err)
	}
	err := s.Verify(t.Context(), r)
	if !errors.Is(err, modelstore.ErrDigest) || !strings.Contains(err.Error(), "xx.gguf") || strings.Contains(err.Error(), "\nx.gguf") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Verify(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestOpenExistingCreatesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if _, err := modelstore.OpenExisting(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	t.Setenv(modelstore.EnvDir, dir)
	openStore(t, "")
	s, err := modelstore.OpenExisting(dir)
	if err != nil || s.Dir() != dir {
		t.Fatalf("%v", err)
	}
	_ = s.Close()
}

// Whatever a record's file contains, reading it returns an error or a valid record.
func FuzzRecord(f *testing.F) {
	valid, err := json.Marshal(modelstore.Record{Name: "n", Files: []modelstore.File{{Name: "m.gguf", Role: modelstore.RoleModel, Size: 1, SHA256: digest("m")}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(valid), "", "{}", "[]", `{"name":"n","files":[{"name":"../m"}]}`} {
		f.Add(seed)
	}
	dir := f.TempDir()
	s, err := modelstore.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(filepath.Join(dir, "names", "n.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get("n")
		if err != nil {
			if !errors.Is(err, modelstore.ErrRecord) {
				t.Fatal(err)
			}
			return
		}
		if err := r.Validate(); err != nil || r.Name != "n" {
			t.Fatalf("%+v: %v", r, err)
		}
		for _, file := range r.Files {
			if path := s.Path(r, file); filepath.Dir(filepath.Dir(path)) != filepath.Join(dir, "snapshots") {
				t.Fatalf("outside of the store: %s", path)
			}
		}
	})
}
