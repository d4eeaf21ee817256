package build

import (
	"bytes"
	"context"
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
	killed, models, running := mkdir("verify-1"), mkdir("models"), mkdir("bench-2")
	age(killed)
	age(models)
	age(filepath.Join(filepath.Dir(res.Dir), "stage.json"))
	if err := s.prune(t.Context(), time.Now().AddDate(0, 0, -30)); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{killed: false, models: true, running: true, res.Dir: false} {
		if exists(dir) != want {
			t.Errorf("%s exists: %v", dir, !want)
		}
	}
	if !strings.Contains(said.String(), "  module-") || !strings.Contains(said.String(), "prune: removed 2 directories") {
		t.Errorf("said %q", said.String())
	}
}
