//go:build linux && amd64

package rocm_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// An error that a setting cures names it, beside what the server said.
func TestErrorsNameTheSetting(t *testing.T) {
	m := load(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		call   func() error
		remedy string
		server string
	}{
		"Embed": {func() error {
			_, err := m.Embed(t.Context(), []string{"x"})
			return err
		}, "Settings.Embeddings", "--embeddings"},
		"Rerank": {func() error {
			_, err := m.Rerank(t.Context(), "x", []string{"y"}, 0)
			return err
		}, "Settings.Reranking", "--reranking"},
		"SaveSlot": {func() error {
			_, err := m.SaveSlot(t.Context(), 0, "x")
			return err
		}, "Settings.SlotDir", "--slot-save-path"},
		"RestoreSlot": {func() error {
			_, err := m.RestoreSlot(t.Context(), 0, "x")
			return err
		}, "Settings.SlotDir", "--slot-save-path"},
	} {
		err := tt.call()
		var said *llamaapi.APIError
		if !errors.Is(err, llamaapi.ErrNotSupported) || !errors.As(err, &said) || said.Status != http.StatusNotImplemented ||
			!strings.Contains(err.Error(), tt.remedy) || !strings.Contains(err.Error(), tt.server) {
			t.Errorf("%s: %v; want the server's words and %s", name, err, tt.remedy)
		}
	}
}

// canned answers every request with the same.
type canned string

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(c))), Request: r}, nil
}

func TestEmbedWithoutPooling(t *testing.T) {
	m := load(t, fakellama.Script{})
	m.Server().Child.HTTPClient().Transport = canned(`[{"index":0,"embedding":[[1],[2]]}]`)
	_, err := m.Embed(t.Context(), []string{"two tokens"})
	if !errors.Is(err, llamaapi.ErrNotPooled) || !strings.Contains(err.Error(), "Settings.Pooling") {
		t.Errorf("got %v, want ErrNotPooled and the setting", err)
	}
}

func TestBadInputsArePointedOut(t *testing.T) {
	path := fakebundle.Use(t, fakellama.Script{})
	s := rocm.Settings{}
	s.Embeddings = true
	m, err := (&rocm.Backend{}).Load(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()

	var said *llamaapi.APIError
	_, err = m.Embed(t.Context(), []string{"a", "bb", ""})
	if !errors.Is(err, rocm.ErrInvalidOption) || !errors.As(err, &said) || said.Status != http.StatusBadRequest || !strings.Contains(err.Error(), "text 2") {
		t.Errorf("an empty text: %v; want ErrOption, the server's words and the text's place", err)
	}
	size := int32(m.Info().VocabSize)
	for _, id := range []int32{size, -1} {
		if _, err := m.Detokenize(t.Context(), []int32{5, id}); !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "id 1 ") {
			t.Errorf("id %d of a vocabulary of %d: %v; want ErrOption and its place", id, size, err)
		}
	}
	if text, err := m.Detokenize(t.Context(), []int32{int32(fakellama.VocabSize() - 1)}); err != nil {
		t.Errorf("an id that is there: %q, %v", text, err)
	}
}
