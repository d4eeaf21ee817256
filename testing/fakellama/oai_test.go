package fakellama

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestRoutes checks that each route is there under all of its names in server.cpp.
func TestRoutes(t *testing.T) {
	_, url := serve(t, Script{Reply: "hi", Embeddings: true, Reranking: true})
	const chat = `{"messages":[{"role":"user","content":"x"}]}`
	for _, tc := range []struct {
		body, holds string
		code        int
		paths       []string
	}{
		{"", `"object":"list"`, 200, []string{"/models", "/v1/models"}},
		{"", "--metrics", 501, []string{"/metrics"}},
		{`{}`, "--props", 501, []string{"/props"}},
		{`{"prompt":"x"}`, `"stop_type":"eos"`, 200, []string{"/completion", "/completions"}},
		{`{"prompt":"x"}`, `"object":"text_completion"`, 200, []string{"/v1/completions"}},
		{chat, `"object":"chat.completion"`, 200, []string{"/chat/completions", "/v1/chat/completions"}},
		{`{"input":"x"}`, `[{"embedding":[[`, 200, []string{"/embedding", "/embeddings"}},
		{`{"input":"x"}`, `"object":"embedding"`, 200, []string{"/v1/embeddings"}},
		{`{"query":"x","documents":["y"]}`, "relevance_score", 200, []string{"/rerank", "/reranking", "/v1/rerank", "/v1/reranking"}},
		{`{}`, "File Not Found", 404, []string{"/responses", "/health", "/models"}},
		{"", "File Not Found", 404, []string{"/completion", "/nowhere/health"}},
	} {
		for _, path := range tc.paths {
			var code int
			var text string
			var err error
			if tc.body == "" {
				code, text = get(t, url+path)
			} else {
				code, text, err = post(t.Context(), t, url+path, tc.body)
			}
			if err != nil || code != tc.code || !strings.Contains(text, tc.holds) {
				t.Errorf("%s: %d %s, %v", path, code, text, err)
			}
		}
	}
	_, locked := serve(t, Script{APIKey: "secret"})
	if code, _ := get(t, locked+"/nowhere/health"); code != http.StatusUnauthorized {
		t.Errorf("a path that only looks like /health needs no key: %d", code)
	}
}

func TestTextCompletion(t *testing.T) {
	type answer struct {
		Choices []struct {
			Text   string
			Index  int
			Finish *string `json:"finish_reason"`
		}
		Object string
		Usage  *struct {
			Total int `json:"total_tokens"`
		}
	}
	_, url := serve(t, Script{Reply: "a b"})
	_, text, err := post(t.Context(), t, url+"/v1/completions", `{"prompt":"x","max_tokens":2}`)
	var whole answer
	if err := errors.Join(err, json.Unmarshal([]byte(text), &whole)); err != nil {
		t.Fatal(err)
	}
	if c := whole.Choices; len(c) != 1 || c[0].Text != "a " || c[0].Finish == nil || *c[0].Finish != "length" || whole.Usage.Total != 3 {
		t.Errorf("%s", text)
	}
	_, text, err = post(t.Context(), t, url+"/v1/completions", `{"prompt":["x","y"],"stream":true}`)
	if err != nil {
		t.Fatal(err)
	}
	all := events(text)
	said, ends := [2]string{}, 0
	for _, e := range all[:len(all)-1] {
		var a answer
		if err := json.Unmarshal([]byte(e), &a); err != nil || a.Object != "text_completion" {
			t.Fatalf("%s: %v", e, err)
		}
		c := a.Choices[0]
		said[c.Index] += c.Text
		if c.Finish != nil {
			ends++
		}
		if (c.Finish != nil) != (a.Usage != nil) {
			t.Errorf("%s", e)
		}
	}
	if said != [2]string{"a b", "a b"} || ends != 2 || strings.Count(text, "[DONE]") != 1 || all[len(all)-1] != "[DONE]" {
		t.Errorf("%q\n%s", said, text)
	}
	for _, f := range []Fault{{Kind: KindNoFinal}, {Kind: KindNoFinal, AfterTokens: 1}, {Kind: KindError, AfterTokens: 1}} {
		_, url := serve(t, Script{Reply: "a b", Faults: []Fault{f}})
		if _, text, err := post(t.Context(), t, url+"/v1/completions", `{"prompt":"x","stream":true}`); err != nil || strings.Contains(text, "[DONE]") {
			t.Errorf("%s: %s, %v", f.Kind, text, err)
		}
	}
	_, url = serve(t, Script{Faults: []Fault{{Kind: KindOversize, Bytes: 99}}})
	if _, text, err := post(t.Context(), t, url+"/v1/completions", `{"prompt":"x","stream":true}`); err != nil || !strings.Contains(text, `"text":"`+strings.Repeat("x", 99)+`"`) {
		t.Errorf("oversize: %s, %v", text, err)
	}
}

func TestOpenAIEmbeddings(t *testing.T) {
	_, url := serve(t, Script{Embeddings: true, Alias: "m"})
	type answer[V any] struct {
		Model string
		Data  []struct {
			Index     int
			Embedding V
			Format    string `json:"encoding_format"`
		}
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	var floats answer[[]float32]
	_, text, err := post(t.Context(), t, url+"/v1/embeddings", `{"input":["x","yy"],"encoding_format":"float"}`)
	if err := errors.Join(err, json.Unmarshal([]byte(text), &floats)); err != nil {
		t.Fatal(err)
	}
	if len(floats.Data) != 2 || floats.Data[1].Index != 1 || floats.Model != "m" || floats.Usage.Prompt != 3 {
		t.Errorf("%s", text)
	}
	var coded answer[[]byte]
	_, text, err = post(t.Context(), t, url+"/v1/embeddings", `{"input":"x","encoding_format":"base64","model":"mine"}`)
	if err := errors.Join(err, json.Unmarshal([]byte(text), &coded)); err != nil {
		t.Fatal(err)
	}
	var numbers []float32
	for b := range slices.Chunk(coded.Data[0].Embedding, 4) {
		numbers = append(numbers, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	if !slices.Equal(numbers, floats.Data[0].Embedding) || coded.Model != "mine" || coded.Data[0].Format != "base64" {
		t.Errorf("%v, %s", numbers, text)
	}
	for body, want := range map[string]string{
		`{"input":"x","encoding_format":"hex"}`: "either float or base64", `{}`: "must be provided", `{"content":"x"}`: `[{"embedding":[[`,
	} {
		if _, text, err := post(t.Context(), t, url+"/v1/embeddings", body); err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %s, %v", body, text, err)
		}
	}
}
