//go:build linux && amd64

package cli

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// The models of a directory have the names of their files, and serve what they were
// made for. Other files are left out.
func TestModelsOfADirectory(t *testing.T) {
	useFake(t)
	dir := t.TempDir()
	model := func(path string, pooling uint32) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		b := ggufgen.New("llama")
		b.Uint("llama.pooling_type", pooling)
		b.Tensor("a", 0, nil, 8, 4)
		f, err := os.Create(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteSparse(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	model("chat.gguf", 0)
	model("vectors.gguf", 2)
	model("x/chat.gguf", 0)
	model("x/ranks.gguf", 4)
	if err := os.WriteFile(filepath.Join(dir, "broken.gguf"), []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, f := newServe()
	cmd.SetContext(t.Context())
	if err := cmd.ParseFlags([]string{"--models-dir", dir, "--context", "512", "--idle-unload", "5m"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configure(cmd, nil); err != nil {
		t.Fatal(err)
	}
	s, err := f.poolSettings(cmd, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]bool{"chat": {}, "vectors": {true, false}, "x/chat": {}, "ranks": {false, true}}
	if got := slices.Sorted(maps.Keys(s.Models)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("models %q", got)
	}
	for name, purpose := range want {
		m := s.Models[name]
		if m.Embeddings != purpose[0] || m.Reranking != purpose[1] || m.Context != 512 || m.IdleUnload.Minutes() != 5 || m.Pinned {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// In a table, the command line takes precedence over [models.NAME], and that over
// [defaults].
func TestTablesAndTheCommandLine(t *testing.T) {
	path := writeConfig(t, `
listen = "127.0.0.1:0"
[defaults]
context = 100
slots = 1
adapter = ["/srv/a"]
idle-unload = "5m"
[models.m]
model = "/srv/m.gguf"
slots = 2
adapter = ["/srv/b", "/srv/c"]
`)
	cmd, f := newServe()
	if err := cmd.ParseFlags([]string{"--config", path, "--idle-unload", "7m", "--server-arg", "--x", "--server-arg", "--y"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configure(cmd, nil); err != nil || !f.several {
		t.Fatal(err, f.several)
	}
	m, err := f.readTable(f.file.withDefaults(f.file.tablesOf(modelsTable)[0]), modelKey, "aliases", "pinned")
	if err != nil {
		t.Fatal(err)
	}
	if m.model != "/srv/m.gguf" || m.context != 100 || m.slots != 2 || m.idleUnload.Minutes() != 7 ||
		!slices.Equal(m.adapters, []string{"/srv/b", "/srv/c"}) || !slices.Equal(m.serverArgs, []string{"--x", "--y"}) {
		t.Errorf("%+v", m)
	}
}

// No client can end a service by requests that crash llama-server.
func TestServeIgnoresRequestFailures(t *testing.T) {
	cmd, f := newServe()
	if err := cmd.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	for name, s := range map[string]rocm.Settings{"one model": f.serverSettings(cmd, log, nil), "several": f.modelSettings(cmd, log)} {
		if !s.Restart.IgnoreRequestFailures || s.Restart.Disabled {
			t.Errorf("%s: %+v", name, s.Restart)
		}
	}
}
