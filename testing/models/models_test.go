package models

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wheelOf returns a wheel with one member.
func wheelOf(t *testing.T, dir, member, text string) string {
	t.Helper()
	path := filepath.Join(dir, strings.ReplaceAll(member, "/", "_")+".whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	w, err := z.Create(member)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func helloWorld() Model {
	const text = "hello world"
	sum := sha256.Sum256([]byte(text))
	return Model{
		File: "m.gguf", Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:]),
		Parts: []Part{{"one==1", "one/part"}, {"two==1", "two/part"}},
	}
}

// index serves wheels and counts the requests.
func index(t *testing.T, texts map[string]string) (wheels, *atomic.Int32) {
	asked := new(atomic.Int32)
	return func(_ context.Context, distribution, dir string) (string, error) {
		asked.Add(1)
		name, _, _ := strings.Cut(distribution, "==")
		text, ok := texts[name]
		if !ok {
			return "", errors.New("no such distribution: " + name)
		}
		return wheelOf(t, dir, name+"/part", text), nil
	}, asked
}

func TestFetchJoinsAndCaches(t *testing.T) {
	dir, m := t.TempDir(), helloWorld()
	get, asked := index(t, map[string]string{"one": "hello ", "two": "world"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := fetchInto(t.Context(), dir, m, get)
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "hello world" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 2 {
		t.Errorf("asked the index %d times for two parts", n)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 { // the model and its lock
		t.Errorf("left in the cache: %v, %v", left, err)
	}
}

func TestFetchReplacesADamagedFile(t *testing.T) {
	dir, m := t.TempDir(), helloWorld()
	if err := os.WriteFile(filepath.Join(dir, m.File), []byte("hello w0rld"), 0o600); err != nil {
		t.Fatal(err)
	}
	get, _ := index(t, map[string]string{"one": "hello ", "two": "world"})
	path, err := fetchInto(t.Context(), dir, m, get)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.check(path); err != nil {
		t.Error(err)
	}
}

// TestFetchHashesAgainAfterAChange damages the file in the ways that leave its size: in place,
// and by another file under its name.
func TestFetchHashesAgainAfterAChange(t *testing.T) {
	dir, m := t.TempDir(), helloWorld()
	path := filepath.Join(dir, m.File)
	get, asked := index(t, map[string]string{"one": "hello ", "two": "world"})
	damage := map[string]func() error{
		"in place": func() error {
			return errors.Join(os.WriteFile(path, []byte("hello w0rld"), 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)))
		},
		"by another file": func() error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			other := path + ".other"
			return errors.Join(os.WriteFile(other, []byte("hello w0rld"), 0o600), os.Chtimes(other, time.Time{}, info.ModTime()), os.Rename(other, path))
		},
	}
	for name, damage := range damage {
		for range 2 { // the second call finds the file hashed
			if _, err := fetchInto(t.Context(), dir, m, get); err != nil {
				t.Fatal(err)
			}
		}
		before := asked.Load()
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := fetchInto(t.Context(), dir, m, get); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "hello world" || asked.Load() == before {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
}

func TestFetchRejects(t *testing.T) {
	t.Run("other contents", func(t *testing.T) {
		get, _ := index(t, map[string]string{"one": "hello ", "two": "w0rld"})
		_, err := fetchInto(t.Context(), t.TempDir(), helloWorld(), get)
		if mismatch := new(MismatchError); !errors.As(err, &mismatch) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing part", func(t *testing.T) {
		get, _ := index(t, map[string]string{"one": "hello "})
		if _, err := fetchInto(t.Context(), t.TempDir(), helloWorld(), get); err == nil || !strings.Contains(err.Error(), "two") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing member", func(t *testing.T) {
		m := helloWorld()
		m.Parts[1].Member = "two/other"
		dir := t.TempDir()
		get, _ := index(t, map[string]string{"one": "hello ", "two": "world"})
		if _, err := fetchInto(t.Context(), dir, m, get); err == nil || !strings.Contains(err.Error(), "two/other") {
			t.Errorf("got %v", err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "m.gguf*")); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	t.Run("no python", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("GOROCM_TEST_MODELS", t.TempDir())
		if _, err := Fetch(t.Context(), SmolLM2()); err == nil || !strings.Contains(err.Error(), "install python3") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRecordedModelsAreWellFormed(t *testing.T) {
	for _, m := range []Model{SmolLM2(), Gemma3()} {
		if b, err := hex.DecodeString(m.SHA256); err != nil || len(b) != sha256.Size {
			t.Errorf("%s: sha256 %q", m.File, m.SHA256)
		}
		if m.Size == 0 || len(m.Parts) == 0 || !strings.HasSuffix(m.File, ".gguf") {
			t.Errorf("incomplete: %+v", m)
		}
	}
}
