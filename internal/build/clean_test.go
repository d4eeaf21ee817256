package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
)

func TestPruneRemovesUnusedStagesAndRemains(t *testing.T) {
	var said bytes.Buffer
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}, Out: &said}
	cache, err := stage.Open(filepath.Join(s.Settings.Cache, "stages"))
	if err != nil {
		t.Fatal(err)
	}
	s.Recipe = &recipe.Recipe{Cache: cache}
	res, err := cache.Do(t.Context(), "module", 1, func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	age := func(name string) {
		t.Helper()
		long := time.Now().AddDate(0, 0, -40)
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
	mkdir := func(name string) string {
		t.Helper()
		dir := filepath.Join(s.Settings.Cache, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	work := func(kind string) string {
		t.Helper()
		dir, err := s.tempWork(kind)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	killed, models, running := work("verify"), mkdir("models"), work("bench")
	// A person's own directories, whose names begin in the same way.
	results, copied := mkdir("bench-results"), mkdir("verify-copy")
	writeFile(t, filepath.Join(results, "table"), "figures")
	writeFile(t, filepath.Join(copied, workMark), filepath.Base(killed))
	linked := filepath.Join(s.Settings.Cache, "bench-link")
	if err := os.Symlink(models, linked); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{killed, models, results, copied} {
		age(dir)
	}
	age(filepath.Join(filepath.Dir(res.Dir), "stage.json"))
	if err := s.prune(t.Context(), time.Now().AddDate(0, 0, -30)); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{killed: false, models: true, running: true, results: true, copied: true, linked: true, res.Dir: false} {
		if exists(dir) != want {
			t.Errorf("%s exists: %v", dir, !want)
		}
	}
	if !strings.Contains(said.String(), "  module-") || !strings.Contains(said.String(), "prune: removed 2 directories") {
		t.Errorf("said %q", said.String())
	}
}

// The directories of a second build have fixed names, which a person may have used.
func TestReproduceRemovesOnlyItsOwnDirectories(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}, Out: &bytes.Buffer{}}
	if err := os.Mkdir(filepath.Join(s.Settings.Cache, "stages"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.secondCache(), "paper.tex"), "text")
	for name, err := range map[string]error{"seed": s.seedCache(nil), "remove": removeWork(s.secondCache())} {
		if !errors.Is(err, errForeignDir) || !strings.Contains(err.Error(), s.secondCache()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if readFile(t, filepath.Join(s.secondCache(), "paper.tex")) != "text" {
		t.Error("a person's file was changed")
	}
	if err := os.RemoveAll(s.secondCache()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.seedCache(nil); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(s.secondCache(), "stages", "notes")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.seedCache(nil); err != nil || !exists(foreign) {
		t.Errorf("a person's directory among the stages was removed: %v", err)
	}
	if err := removeWork(s.secondCache()); err != nil || exists(s.secondCache()) {
		t.Errorf("its own directory: %v", err)
	}
	if err := removeWork(s.secondCache()); err != nil {
		t.Errorf("a missing directory: %v", err)
	}
}
