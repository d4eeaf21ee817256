//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestStopStrings uses stop strings with the real server: a stop string ends the
// answer before it, and the beginning of one removes nothing from the answer, at
// any limit. Random weights produce all kinds of tokens, including tokens without
// text and parts of runes.
func TestStopStrings(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		limit int // of tokens
	}{
		"SmolLM2": {realModel(t, models.SmolLM2()), 4},
		"SPM":     {tiny(t, "llama-spm", 3), 10},
		"BPE":     {tiny(t, "gpt-2", 3), 10},
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, c.path)
			free, tokens := generate(t, m, c.limit)
			heldBack := 0
			for i, token := range tokens {
				if strings.TrimSpace(token.Text) == "" {
					continue
				}
				if got, _ := generate(t, m, c.limit, token.Text); got != before(free, token.Text) {
					t.Errorf("stop %q: %q, without it %q", token.Text, got, free)
				}
				// The text that looks like the beginning of a stop string.
				heldBack++
				want, _ := generate(t, m, i+1)
				if got, _ := generate(t, m, i+1, token.Text+"\x01"); got != want {
					t.Errorf("stop %q after %d tokens: %q, without it %q", token.Text+"\x01", i+1, got, want)
				}
			}
			if heldBack == 0 {
				t.Errorf("%v has no text to stop at", tokens)
			}
		})
	}
}

// before returns the part of a text before the first occurrence of stop.
func before(text, stop string) string {
	text, _, _ = strings.Cut(text, stop)
	return text
}

// generate continues a fixed prompt, and checks that the stream has the same text as the
// server's answer without streaming.
func generate(t *testing.T, m *rocm.Model, limit int, stop ...string) (string, []inference.Token) {
	t.Helper()
	const prompt = "Once upon a time"
	s := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt(prompt), Stop: stop, GenerateConfig: inference.GenerateConfig{MaxTokens: limit}})
	var text strings.Builder
	var tokens []inference.Token
	for token := range s.All() {
		tokens = append(tokens, token)
		text.WriteString(token.Text)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	zero, cache := float32(0), false
	whole, err := m.API().Complete(t.Context(), &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{llamaapi.TextPrompt(prompt)}, MaxTokens: &limit, Temperature: &zero, CachePrompt: &cache, Stop: stop,
	})
	if err != nil {
		t.Fatal(err)
	}
	// An incomplete rune is not part of the text.
	if want := strings.TrimRight(whole[0].Text, "\ufffd"); text.String() != want {
		t.Errorf("stop %q, limit %d: the stream says %q, the whole %q", stop, limit, text.String(), want)
	}
	return text.String(), tokens
}
