//go:build linux

package pull_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
)

// A lock brings the same bytes to another machine, from another hub, or from a
// directory without any network.
func TestLockBringsTheSameModels(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	for _, name := range []string{"hf:o/r:Q8_0", "hf:o/r:Q4_K_M"} {
		if _, err := pullRef(t, p, s, name); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	l, err := pull.NewLock(all)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), pull.LockFile)
	if err := l.Write(name); err != nil {
		t.Fatal(err)
	}
	read, err := pull.ReadLock(name)
	if d := cmp.Diff(l, read); err != nil || d != "" {
		t.Fatalf("%v\n%s", err, d)
	}

	mirror := fakehub.Start(t) // the same files at another address
	repo(t, mirror)
	if err := os.RemoveAll(h.Dir); err != nil {
		t.Fatal(err)
	}
	compare := func(s *modelstore.Store) {
		t.Helper()
		got, err := s.List()
		if err != nil || len(got) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range got {
			if err := s.Verify(t.Context(), &got[i]); err != nil {
				t.Error(err)
			}
			if got[i].Name != all[i].Name || got[i].Files[0].SHA256 != all[i].Files[0].SHA256 || got[i].License != "apache-2.0" {
				t.Errorf("%+v, want %+v", got[i], all[i])
			}
		}
	}
	other := newStore(t, t.TempDir())
	if err := newPuller(t, mirror).PullLocked(t.Context(), other, read, ""); err != nil {
		t.Fatal(err)
	}
	compare(other)
	for _, dir := range []string{filepath.Join(s.Dir(), "blobs"), filepath.Join(mirror.Dir, "o/r")} {
		offline := newStore(t, t.TempDir())
		if err := p.PullLocked(t.Context(), offline, read, dir); err != nil {
			t.Fatal(err)
		}
		compare(offline)
	}

	// A mirror with other bytes is no source, and neither is an empty one.
	changed := t.TempDir()
	for _, r := range all {
		for _, f := range r.Files {
			raw, err := os.ReadFile(filepath.Join(mirror.Dir, "o/r", f.Name))
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)-1] ^= 1
			mustAll(t, os.WriteFile(filepath.Join(changed, f.Name), raw, 0o600))
		}
	}
	if err := p.PullLocked(t.Context(), newStore(t, t.TempDir()), read, changed); !errors.Is(err, download.ErrDigest) {
		t.Errorf("a mirror with a changed byte: %v", err)
	}
	if err := os.WriteFile(filepath.Join(mirror.Dir, "o/r/m-Q4_K_M.gguf"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]error{filepath.Join(mirror.Dir, "o/r"): download.ErrSize, t.TempDir(): os.ErrNotExist} {
		if err := p.PullLocked(t.Context(), newStore(t, t.TempDir()), read, dir); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	// All that an empty mirror lacks is named at once, and nothing is asked of it that the
	// store has.
	empty := p.PullLocked(t.Context(), newStore(t, t.TempDir()), read, t.TempDir())
	for _, r := range all {
		for _, f := range r.Files {
			if empty == nil || !strings.Contains(empty.Error(), "sha256-"+f.SHA256+" nor "+f.Name) {
				t.Errorf("%s is not named by %v", f.Name, empty)
			}
		}
	}
	if err := p.PullLocked(t.Context(), other, read, t.TempDir()); err != nil {
		t.Errorf("with everything in the store: %v", err)
	}
}

func TestReadLockRejects(t *testing.T) {
	valid := `{"version":1,"models":[{"name":"hf:o/r:Q8_0","files":[{"name":"m.gguf","role":"model","size":3,"sha256":"` + strings.Repeat("ab", 32) + `"}]}]}`
	name := filepath.Join(t.TempDir(), pull.LockFile)
	for from, to := range map[string]string{
		"": "", `"version":1`: `"version":2`, "hf:o/r:Q8_0": "/srv/model.gguf", "m.gguf": "../m.gguf", `"size":3`: `"size":-3`, "abab": "zz", "]}]}": "]}",
		`"role":"model"`: `"role":"model","url":"https://h/m.gguf?sig=x"`, `"name":"hf:o/r:Q8_0"`: `"name":"https://h/m.gguf?sig=x"`,
	} {
		content := strings.ReplaceAll(valid, from, to)
		if from == "" {
			content = valid
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := pull.ReadLock(name); (err == nil) != (from == "") || err != nil && !errors.Is(err, pull.ErrLock) {
			t.Errorf("%q for %q: %+v, %v", to, from, l, err)
		}
	}
	if _, err := pull.ReadLock(name + "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
