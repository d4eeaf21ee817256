//go:build linux && amd64

package rocm_test

import (
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// BenchmarkStream is one token from a real child process to the caller's loop,
// the imitation's own work included.
func BenchmarkStream(b *testing.B) {
	path := fakebundle.Use(b, fakellama.Script{NeverEnds: true, ContextLen: 1 << 30})
	m, err := (&rocm.Backend{}).Load(b.Context(), path, rocm.Settings{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	s := m.Stream(b.Context(), rocm.Request{Prompt: rocm.TextPrompt("Go on"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1 << 28}})
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
