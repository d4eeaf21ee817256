//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/request"
)

// post sends a request and returns its status and body, or 0 and the error.
func (s *served) post(ctx context.Context, t *testing.T, key, path, body string) (status int, text string) {
	t.Helper()
	got, err := request.SendJSON(ctx, http.MethodPost, s.url+path, key, body)
	if err != nil {
		return 0, err.Error()
	}
	return got.Status, got.Body
}

// The tokens that are counted for a key are those that the real server's answers
// report, in every API.
func TestTokensOfKeysAreThoseOfTheAnswers(t *testing.T) {
	used := filepath.Join(t.TempDir(), "used.json")
	key := "test-key-of-alice"
	config := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("usage-file = %q\n[models.smol]\nmodel = %q\n[keys.alice]\nsha256 = \"%x\"\ntokens-per-day = 1_000_000\n",
		used, realModel(t, models.SmolLM2()), sha256.Sum256([]byte(key)))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, "--config", config)
	want := int64(0)
	for name, tt := range map[string]struct{ path, body string }{
		"chat":              {"/v1/chat/completions", `{"model":"smol","messages":[{"role":"user","content":"Hi"}],"max_tokens":5}`},
		"streamed chat":     {"/v1/chat/completions", `{"model":"smol","messages":[{"role":"user","content":"Hi"}],"max_tokens":6,"stream":true}`},
		"chat with usage":   {"/v1/chat/completions", `{"model":"smol","messages":[{"role":"user","content":"Ho"}],"max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}`},
		"text":              {"/v1/completions", `{"model":"smol","prompt":"Once upon","max_tokens":5}`},
		"own":               {"/completion", `{"model":"smol","prompt":"Once upon","n_predict":5}`},
		"own, streamed":     {"/completion", `{"model":"smol","prompt":"Twice upon","n_predict":5,"stream":true,"timings_per_token":true}`},
		"Anthropic":         {"/v1/messages", `{"model":"smol","messages":[{"role":"user","content":"Hi"}],"max_tokens":5}`},
		"streamed messages": {"/v1/messages", `{"model":"smol","messages":[{"role":"user","content":"Hi"}],"max_tokens":6,"stream":true}`},
		"Responses":         {"/v1/responses", `{"model":"smol","input":"Hi","max_output_tokens":5}`},
		"streamed response": {"/v1/responses", `{"model":"smol","input":"Hi","max_output_tokens":6,"stream":true}`},
	} {
		status, body := s.post(t.Context(), t, key, tt.path, tt.body)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, body)
		}
		n := reportedTokens(body)
		if n == 0 {
			t.Errorf("%s reports no tokens: %s", name, body)
		}
		want += n
		var file struct{ Tokens map[string]int64 }
		poll.Until(t, "the tokens of "+name, func() bool {
			raw, err := os.ReadFile(used)
			return err == nil && json.Unmarshal(raw, &file) == nil && file.Tokens["alice"] >= want
		})
		if got := file.Tokens["alice"]; got != want {
			t.Errorf("%s: %d tokens are counted, want %d: %s", name, got, want, body)
			want = got
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

// reportedTokens reads the numbers that an answer has of its tokens.
func reportedTokens(body string) int64 {
	var most struct{ prompt, output int64 }
	for line := range strings.Lines(body) {
		line = strings.TrimPrefix(line, "data: ")
		var part map[string]any
		if json.Unmarshal([]byte(line), &part) != nil {
			continue
		}
		for _, holder := range []any{part, part["message"], part["response"]} {
			holder, _ := holder.(map[string]any)
			for _, name := range []string{"usage", "timings"} {
				counts, _ := holder[name].(map[string]any)
				number := func(names ...string) (n int64) {
					for _, name := range names {
						value, _ := counts[name].(float64)
						n += int64(value)
					}
					return n
				}
				input := number("input_tokens")
				if name == "usage" && counts["input_tokens_details"] == nil {
					input += number("cache_read_input_tokens")
				}
				most.prompt = max(most.prompt, number("prompt_tokens"), input, number("cache_n", "prompt_n"))
				most.output = max(most.output, number("completion_tokens"), number("output_tokens"), number("predicted_n"))
			}
		}
	}
	return most.prompt + most.output
}
