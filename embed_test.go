//go:build linux && amd64

package rocm_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestEmbedAndRerank(t *testing.T) {
	s := rocm.Settings{}
	s.Embeddings, s.Pooling = true, "mean"
	m, err := (&rocm.Backend{}).Load(t.Context(), fakebundle.Use(t, fakellama.Script{}), s)
	if err != nil {
		t.Fatal(err)
	}
	vectors, err := m.Embed(t.Context(), []string{"a river", "a mountain", "a river"})
	if err != nil || len(vectors) != 3 || len(vectors[0]) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for i, v := range vectors[0] {
		if v != vectors[2][i] {
			t.Fatal("the same text has two vectors")
		}
	}
	if args := strings.Join(m.Server().Child.Diagnose().Argv, " "); !strings.Contains(args, "--embeddings --pooling mean") {
		t.Errorf("started as %s", args)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}

	s = rocm.Settings{}
	s.Reranking = true
	if m, err = (&rocm.Backend{}).Load(t.Context(), fakebundle.Use(t, fakellama.Script{}), s); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	ranked, err := m.Rerank(t.Context(), "water", []string{"a river", "a mountain", "a desert"}, 2)
	if err != nil || len(ranked) != 2 || ranked[0].Score < ranked[1].Score {
		t.Errorf("%+v, %v", ranked, err)
	}
}
