//go:build linux && amd64

package rocm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// BenchmarkStream is one token from a real child process to the caller's loop,
// the imitation's own work included.
func BenchmarkStream(b *testing.B) {
	dir := b.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "llama-server")); err != nil {
		b.Fatal(err)
	}
	env, err := fakellama.Script{NeverEnds: true, ContextLen: 1 << 30}.Env()
	if err != nil {
		b.Fatal(err)
	}
	name, value, _ := strings.Cut(env, "=")
	b.Setenv(name, value)
	b.Setenv(roleName, "server")
	b.Setenv(rocm.EnvBundle, dir)
	b.Setenv("XDG_RUNTIME_DIR", b.TempDir())
	b.Setenv("GOROCM_CACHE", b.TempDir())
	path := filepath.Join(b.TempDir(), "model.gguf")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := ggufgen.Catalogue()[0].Builder().WriteSparse(f); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	m, err := (&rocm.Backend{}).Load(context.Background(), path, rocm.DefaultSettings())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	s := m.Stream(b.Context(), rocm.Request{Prompt: "Go on", GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 28}})
	defer func() { _ = s.Close() }()
	if _, ok := s.Next(); !ok {
		b.Fatal(s.Err())
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Next(); !ok {
			b.Fatal(s.Err())
		}
	}
}
