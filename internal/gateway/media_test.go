package gateway

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// Media travel inside the request: an address is never fetched.
func TestRejectsRemoteMedia(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer other.Close()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{Vision: true})))
	uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString(imagegen.PNG(16, 1))
	part := func(p string) string { return `{"messages":[{"role":"user","content":[` + p + `]}],"max_tokens":2}` }
	for name, tt := range map[string]struct {
		path, body string
		status     int
	}{
		"data":       {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `"}}`), 200},
		"words":      {"/v1/chat/completions", part(`{"type":"text","text":"see http://example.org"},{"type":"text","text":"\u0068ttp"}`), 200},
		"remote":     {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"escaped":    {"/chat/completions", part(`{"type":"image_url","image_url":{"url":"\u0068ttp` + other.URL[4:] + `"}}`), 400},
		"twice":      {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `","url":"` + other.URL + `"}}`), 400},
		"template":   {"/apply-template", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"sound":      {"/v1/chat/completions", part(`{"type":"input_audio","input_audio":{"data":"` + other.URL + `"}}`), 400},
		"video":      {"/v1/chat/completions", part(`{"type":"video_url","video_url":{"url":"` + other.URL + `"}}`), 400},
		"responses":  {"/v1/responses", `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"` + other.URL + `"}]}]}`, 400},
		"anthropic":  {"/v1/messages", part(`{"type":"image","source":{"type":"url","url":"` + other.URL + `"}}`), 400},
		"a file":     {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}`), 400},
		"no json":    {"/v1/chat/completions", `{"image_url":{"url":"` + other.URL + `"`, 400},
		"two values": {"/v1/chat/completions", part(`{"type":"text","text":"http"}`) + "]", 400},
		"a BOM":      {"/v1/chat/completions", "\ufeff" + part(`{"type":"image_url","image_url":{"url":"`+other.URL+`"}}`), 400},
	} {
		if got := send(t, http.MethodPost, url+tt.path, tt.body); got.status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, tt.status)
		}
	}
	for header, value := range map[string]string{"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"} {
		if got := send(t, http.MethodPost, url+"/v1/chat/completions", "x", header, value); got.status != 400 {
			t.Errorf("%s %s: %d %s", header, value, got.status, got.body)
		}
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("the address was fetched %d times", n)
	}
}

// FuzzRemoteMedia compares the token reader with a walk over the decoded value.
func FuzzRemoteMedia(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"content":[{"image_url":{"url":"http://x"}}]}]}`, `{"image_url":"http"}`, `[{"source":{"data":["http"],"url":1}}]`,
		`{"source":{"a":{"url":"http"},"url":"\u0068ttp"}}`, `{"url":"http"}`, `{"image_url":{"url":"no http"}}`, `"http"`, `{"http":`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var value any
		if json.Unmarshal(body, &value) != nil {
			_, _ = hasRemoteMedia(body) // must not panic
			return
		}
		got, err := hasRemoteMedia(body)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if want := namesMedia(value, ""); want && !got {
			t.Errorf("%q: remote media not found", body)
		}
	})
}

// namesMedia reports whether a value contains the address of a medium.
func namesMedia(v any, parent string) bool {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			text, isText := member.(string)
			f := jsonFrame{parent: parent, key: key}
			if isText && strings.HasPrefix(text, "http") && f.isMediaAddress() || namesMedia(member, key) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if namesMedia(e, parent) {
				return true
			}
		}
	}
	return false
}
