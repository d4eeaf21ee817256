//go:build e2e

package pages

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/testing/e2e/browser"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// otherOrigin serves an empty page on another port, or as another host.
func otherOrigin(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>Another origin</title>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// fetchFrom is an expression that sends a chat from a page, and is the status and the
// text of the answer, or the error of fetch. A JSON body makes it need a preflight.
func fetchFrom(url, key, model string) string {
	return fmt.Sprintf(`fetch(%q, {method: "POST", headers: {"Content-Type": "application/json", "Authorization": "Bearer " + %q},
		body: JSON.stringify({model: %q, stream: true, messages: [{role: "user", content: "Hello"}]})})
		.then(async r => r.status + " " + await r.text(), e => "blocked: " + e.message)`, url+"/v1/chat/completions", key, model)
}

// TestCORS fetches from pages of other origins, as a browser allows it.
func TestCORS(t *testing.T) {
	const key = "the-key"
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := browser.Start(t)
	page := otherOrigin(t)
	withKey := gateway.CredentialFiles{KeyFile: keys}
	for _, test := range []struct {
		name    string
		files   gateway.CredentialFiles
		origins []string
		key     string
		model   string
		want    string // in the answer
	}{
		{"a page of this machine, no key", gateway.CredentialFiles{}, nil, "", "chat", "[DONE]"},
		{"an error is readable", gateway.CredentialFiles{}, nil, "", "nosuch", "404 "},
		{"any page with a key", withKey, nil, key, "chat", "[DONE]"},
		{"a wrong key is readable", withKey, nil, "wrong", "chat", "401 "},
		{"its origin is listed", withKey, []string{page}, key, "chat", "[DONE]"},
		{"all origins", withKey, []string{"*"}, key, "chat", "[DONE]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, options{models: twoModels(), files: test.files, origins: test.origins, script: fakellama.Script{Reply: "Hello, world!"}})
			p := b.Open(t, browser.View{})
			p.Goto(page)
			if got := browser.Eval[string](p, fetchFrom(s.url, test.key, test.model)); !strings.Contains(got, test.want) {
				t.Errorf("the page got %q, want %q", got, test.want)
			}
		})
	}

	// A host name of another machine: Chromium resolves it to this one.
	foreign := strings.Replace(page, "127.0.0.1", browser.ForeignHost, 1)
	for _, test := range []struct {
		name    string
		files   gateway.CredentialFiles
		origins []string
		want    string
	}{
		{"a foreign page, no key", gateway.CredentialFiles{}, nil, "blocked: "},
		{"a foreign page with a key", withKey, nil, "[DONE]"},
		{"a foreign page that is listed", withKey, []string{foreign}, "[DONE]"},
		{"a foreign page that is not listed", withKey, []string{"https://chat.example"}, "blocked: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, options{models: twoModels(), files: test.files, origins: test.origins, script: fakellama.Script{Reply: "Hello, world!"}})
			p := b.Open(t, browser.View{})
			p.Goto(foreign)
			if got := browser.Eval[string](p, fetchFrom(s.url, key, "chat")); !strings.Contains(got, test.want) {
				t.Errorf("the page got %q, want %q", got, test.want)
			}
		})
	}
}
