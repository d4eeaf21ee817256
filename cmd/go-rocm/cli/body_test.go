//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// endless are spaces, as many as are asked for.
func endless(n int64) io.Reader { return io.LimitReader(spaces{}, n) }

type spaces struct{}

// Read implements io.Reader.
func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// What llama-server would refuse without a word, or die of, does not get there.
func TestServeBoundsBodies(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	s := w.serve(t)
	deep := func(n int) io.Reader {
		return strings.NewReader(`{"content":"x","http":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}")
	}
	half := func(text string) io.Reader {
		return io.MultiReader(endless(maxReplay), strings.NewReader(text)) // not all of it is kept
	}
	quoted := `{"content":"\"` + strings.Repeat("[", 2*maxNesting) + `"}`
	for name, tt := range map[string]struct {
		path   string
		body   io.Reader
		length int64 // -1: not told
		header string
		status int
		says   string
	}{
		"deep enough":       {"/tokenize", deep(maxNesting - 1), -1, "", 200, ""},
		"too deep":          {"/tokenize", deep(maxNesting), -1, "", 400, "1000 levels"},
		"too deep to talk":  {"/v1/chat/completions", deep(maxNesting), -1, "", 400, "1000 levels"},
		"never closed":      {"/v1/chat/completions", strings.NewReader(`["http",` + strings.Repeat("[", maxNesting)), -1, "", 400, "1000 levels"},
		"objects":           {"/completion", strings.NewReader(strings.Repeat(`{"a":`, maxNesting+1)), -1, "", 400, "1000 levels"},
		"deep and long":     {"/tokenize", half(strings.Repeat("[", maxNesting+1)), -1, "", 400, "1000 levels"},
		"in a string":       {"/tokenize", strings.NewReader(quoted), -1, "", 200, ""},
		"wide":              {"/tokenize", strings.NewReader(`{"content":"x","y":[` + strings.Repeat("[],", 2*maxNesting) + "0]}"), -1, "", 200, ""},
		"long":              {"/tokenize", half(`{"content":"x"}`), -1, "", 200, ""},
		"of curl -d":        {"/tokenize", half(`{"content":"x"}`), -1, "Content-Type: application/x-www-form-urlencoded", 200, ""},
		"a file":            {"/v1/audio/transcriptions", strings.NewReader(strings.Repeat("[", 2*maxNesting)), -1, "Content-Type: multipart/form-data; boundary=x", 404, ""},
		"seemingly a file":  {"/tokenize", strings.NewReader(strings.Repeat("[", 2*maxNesting)), -1, "Content-Type: Multipart/Form-Data; boundary=x", 400, "1000 levels"},
		"compressed":        {"/tokenize", strings.NewReader("x"), -1, "Content-Encoding: gzip", 400, "neither compressed"},
		"too large":         {"/tokenize", endless(maxBody + 1), maxBody + 1, "", 413, "100 MiB"},
		"too large, untold": {"/tokenize", endless(maxBody + 1), -1, "", 413, "100 MiB"},
		"too large a talk":  {"/v1/chat/completions", endless(maxBody + 1), -1, "", 413, "100 MiB"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+tt.path, io.NopCloser(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = tt.length
		if key, value, ok := strings.Cut(tt.header, ": "); ok {
			req.Header.Set(key, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tt.status || !strings.Contains(string(got), tt.says) {
			t.Errorf("%s: %d %.200s, %v; want %d that says %q", name, res.StatusCode, got, err, tt.status, tt.says)
		}
	}
	s.end(t)
}

// FuzzNesting compares the count of brackets with what a decoder sees.
func FuzzNesting(f *testing.F) {
	for _, s := range []string{`[[]]`, `{"a":["]","\"[","\\"]}`, `"["`, `"\u005b"`, `[{"[":{}}]`, `[[`, `]]`, `"\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b boundedBody
		most := 0
		for _, c := range body {
			b.count([]byte{c})
			most = max(most, b.depth)
		}
		if !json.Valid(body) {
			return
		}
		if b.depth != 0 || b.quoted || b.escaped {
			t.Fatalf("%q is valid and over: %+v", body, b)
		}
		want, depth := 0, 0
		for dec := json.NewDecoder(bytes.NewReader(body)); ; {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch token {
			case json.Delim('['), json.Delim('{'):
				depth++
			case json.Delim(']'), json.Delim('}'):
				depth--
			}
			want = max(want, depth)
		}
		if most != want {
			t.Errorf("%q: %d levels, want %d", body, most, want)
		}
	})
}
