package gateway

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

// blanks returns a reader of n spaces.
func blanks(n int64) io.Reader { return io.LimitReader(endlessBlanks{}, n) }

type endlessBlanks struct{}

// Read implements io.Reader.
func (endlessBlanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Bodies that llama-server rejects without an answer, or that crash it, are not
// forwarded.
func TestLimitsBodies(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{})))
	deep := func(n int) io.Reader {
		return strings.NewReader(`{"content":"x","http":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}")
	}
	long := func(text string) io.Reader {
		return io.MultiReader(blanks(16<<20), strings.NewReader(text)) // longer than a buffer
	}
	quoted := `{"content":"\"` + strings.Repeat("[", 2*maxNesting) + `"}`
	for name, tt := range map[string]struct {
		path   string
		body   io.Reader
		length int64 // -1: chunked
		header string
		status int
		says   string
	}{
		"deep":               {"/tokenize", deep(maxNesting - 1), -1, "", 200, ""},
		"too deep":           {"/tokenize", deep(maxNesting), -1, "", 400, "1000 levels"},
		"too deep a chat":    {"/v1/chat/completions", deep(maxNesting), -1, "", 400, "1000 levels"},
		"never closed":       {"/v1/chat/completions", strings.NewReader(`["http",` + strings.Repeat("[", maxNesting)), -1, "", 400, "1000 levels"},
		"objects":            {"/completion", strings.NewReader(strings.Repeat(`{"a":`, maxNesting+1)), -1, "", 400, "1000 levels"},
		"deep and long":      {"/tokenize", long(strings.Repeat("[", maxNesting+1)), -1, "", 400, "1000 levels"},
		"in a string":        {"/tokenize", strings.NewReader(quoted), -1, "", 200, ""},
		"wide":               {"/tokenize", strings.NewReader(`{"content":"x","y":[` + strings.Repeat("[],", 2*maxNesting) + "0]}"), -1, "", 200, ""},
		"long":               {"/tokenize", long(`{"content":"x"}`), -1, "", 200, ""},
		"curl -d":            {"/tokenize", long(`{"content":"x"}`), -1, "Content-Type: application/x-www-form-urlencoded", 200, ""},
		"form":               {"/v1/audio/transcriptions", strings.NewReader("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n" + strings.Repeat("[", 2*maxNesting) + "\r\n--x--\r\n"), -1, "Content-Type: multipart/form-data; boundary=x", 404, ""},
		"not quite a form":   {"/tokenize", strings.NewReader(strings.Repeat("[", 2*maxNesting)), -1, "Content-Type: Multipart/Form-Data; boundary=x", 400, "plain JSON"},
		"compressed":         {"/tokenize", strings.NewReader("x"), -1, "Content-Encoding: gzip", 400, "compressed"},
		"too large":          {"/tokenize", blanks(maxBody + 1), maxBody + 1, "", 413, "100 MiB"},
		"too large, chunked": {"/tokenize", blanks(maxBody + 1), -1, "", 413, "100 MiB"},
		"too large a chat":   {"/v1/chat/completions", blanks(maxBody + 1), -1, "", 413, "100 MiB"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+tt.path, io.NopCloser(tt.body))
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
}

// FuzzNesting compares the counted nesting with that of encoding/json.
func FuzzNesting(f *testing.F) {
	for _, s := range []string{`[[]]`, `{"a":["]","\"[","\\"]}`, `"["`, `"\u005b"`, `[{"[":{}}]`, `[[`, `]]`, `"\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return
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
		if !nestingWithin(body, want) || want > 0 && nestingWithin(body, want-1) {
			t.Errorf("%q is nested %d levels deep", body, want)
		}
	})
}
