//go:build linux && amd64

package rocm_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// hubWithModel starts a hub with the model hf:o/m, of a few KiB.
func hubWithModel(t *testing.T) *fakehub.Hub {
	t.Helper()
	h := fakehub.Start(t)
	t.Setenv(hub.EnvEndpoint, h.URL)
	t.Setenv(hub.EnvToken, "")
	t.Setenv("NETRC", filepath.Join(t.TempDir(), "none"))
	t.Setenv(modelstore.EnvDir, filepath.Join(t.TempDir(), "store"))
	b := ggufgen.New("llama")
	for _, key := range []string{"block_count", "attention.head_count", "attention.head_count_kv"} {
		b.Uint("llama."+key, 1)
	}
	for key, v := range map[string]uint32{"context_length": 256, "embedding_length": 8, "feed_forward_length": 8} {
		b.Uint("llama."+key, v)
	}
	b.Texts("tokenizer.ggml.tokens", []string{"a", "b"})
	for name, rows := range map[string]uint64{"token_embd": 2, "blk.0.attn_q": 8, "blk.0.attn_k": 8, "blk.0.attn_v": 8, "blk.0.attn_output": 8, "blk.0.ffn_up": 8, "blk.0.ffn_down": 8, "blk.0.ffn_gate": 8} {
		b.Tensor(name+".weight", gguf.F32, func(w io.Writer, size uint64) error {
			_, err := w.Write(make([]byte, size))
			return err
		}, 8, rows)
	}
	path := filepath.Join(h.Dir, "o", "m", "m-Q4_0.gguf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), b.WriteFile(path)); err != nil {
		t.Fatal(err)
	}
	return h
}

// LoadModel loads a reference from the store, and downloads it only where
// Settings.Download allows that.
func TestLoadModelDownloadsWhereAllowed(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{})
	h := hubWithModel(t)
	backend := &rocm.Backend{}
	_, err := backend.LoadModel("hf:o/m")
	if !errors.Is(err, modelstore.ErrNotFound) || !strings.Contains(err.Error(), "go-rocm pull hf:o/m") || h.Requests() != 0 {
		t.Fatalf("not allowed: %v, %d requests", err, h.Requests())
	}
	var stages []rocm.LoadStage
	backend.Defaults.Download = true
	backend.Defaults.Progress = func(p rocm.LoadProgress) { stages = append(stages, p.Stage) }
	m, err := backend.LoadModel("hf:o/m")
	if err != nil {
		t.Fatal(err)
	}
	for token := range m.Generate(t.Context(), "Hi", inference.WithMaxTokens(2)) {
		_ = token
	}
	if err := errors.Join(m.Err(), m.Close()); err != nil {
		t.Error(err)
	}
	if len(stages) == 0 || stages[0] != rocm.StageDownload {
		t.Errorf("stages %q", stages)
	}
	// It is in the store now, whether or not downloads are allowed.
	requests := h.Requests()
	if m, err = (&rocm.Backend{}).LoadModel("hf:o/m:Q4_0"); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil || h.Requests() != requests {
		t.Errorf("%v, %d more requests", err, h.Requests()-requests)
	}
	if _, err := backend.LoadModel("hf:o/none"); !errors.Is(err, hub.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
