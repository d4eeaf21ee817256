//go:build linux && amd64

package rocm_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// llama-server takes a text for an embedding in one batch, of 512 tokens unless it
// is told otherwise.
func TestEmbeddingsFillTheContext(t *testing.T) {
	path := fakebundle.Use(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		change func(*rocm.Settings)
		want   string
	}{
		"embeddings":      {func(s *rocm.Settings) { s.Embeddings, s.Context = true, 3000 }, "--batch-size 3000 --ubatch-size 3000"},
		"reranking":       {func(s *rocm.Settings) { s.Reranking, s.Context = true, 3000 }, "--batch-size 3000 --ubatch-size 3000"},
		"model's context": {func(s *rocm.Settings) { s.Embeddings = true }, "--batch-size 8192 --ubatch-size 8192"},
		"text":            {func(*rocm.Settings) {}, ""},
		"own": {func(s *rocm.Settings) {
			s.Embeddings, s.Args = true, []string{"--ubatch-size", "700"}
		}, "--ubatch-size 700"},
	} {
		s := rocm.Settings{}
		tt.change(&s)
		m, err := (&rocm.Backend{}).Load(t.Context(), path, s)
		if err != nil {
			t.Fatal(name, err)
		}
		args := strings.Join(m.Server().Child.Diagnose().Argv, " ")
		if !strings.Contains(args, tt.want) || strings.Count(args, "batch-size") != strings.Count(tt.want, "batch-size") {
			t.Errorf("%s: started as %s; want %q", name, args, tt.want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
