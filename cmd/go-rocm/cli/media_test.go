//go:build linux && amd64

package cli

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// projector writes a tiny projector into the world.
func (w *world) projector(t *testing.T) string {
	t.Helper()
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.dir, "mmproj.gguf")
	if err := b.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// FuzzRemoteMedia compares the reader of tokens with a walk over the whole value.
func FuzzRemoteMedia(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"content":[{"image_url":{"url":"http://x"}}]}]}`, `{"image_url":"http"}`, `[{"source":{"data":["http"],"url":1}}]`,
		`{"source":{"a":{"url":"http"},"url":"\u0068ttp"}}`, `{"url":"http"}`, `{"image_url":{"url":"no http"}}`, `"http"`, `{"http":`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var whole any
		if json.Unmarshal(body, &whole) != nil {
			_, _ = remoteMedia(body) // it must only not panic
			return
		}
		got, err := remoteMedia(body)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if want := names(whole, ""); want && !got {
			t.Errorf("%q: nothing found", body)
		}
	})
}

// names reports whether a value holds the address of a medium.
func names(v any, of string) bool {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			text, isText := member.(string)
			l := level{of: of, key: key}
			if isText && strings.HasPrefix(text, "http") && l.address() || names(member, key) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if names(e, of) {
				return true
			}
		}
	}
	return false
}

// file writes a file into the world.
func (w *world) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunShowsImages(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	mmproj := w.projector(t)
	red, blue := w.file(t, "red.png", imagegen.PNG(16, 1)), w.file(t, "blue.png", imagegen.PNG(16, 2))
	run := func(args ...string) string {
		t.Helper()
		out, errs, status := w.output(t, "", append([]string{"run", w.model, "--temperature", "0", "-n", "20", "-p", "What?"}, args...)...)
		if status != 0 {
			t.Fatalf("%v: status %d, %s", args, status, errs)
		}
		return out
	}
	for _, raw := range []string{"--raw=false", "--raw"} {
		one, two := run("--mmproj", mmproj, "--image", red, raw), run("--mmproj", mmproj, "--image", blue, raw)
		none, both := run(raw), run("--mmproj", mmproj, "--image", red, "--image", blue, raw)
		if one == two || one == none || one == both {
			t.Errorf("%s: %q, other image %q, both %q, none %q", raw, one, two, both, none)
		}
	}
}

func TestImageMistakesAreExplained(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	mmproj, red := w.projector(t), w.file(t, "red.png", imagegen.PNG(16, 1))
	noise := w.file(t, "noise.png", []byte("noise"))
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"no projector":     {[]string{"--image", red}, exitUsage, "--mmproj"},
		"no file":          {[]string{"--image", red + "x", "--mmproj", mmproj}, exitFailure, "no such file"},
		"noise":            {[]string{"--image", noise, "--mmproj", mmproj}, exitFailure, "Failed to load image"},
		"not a projector":  {[]string{"--image", red, "--mmproj", w.model}, exitFailure, "no projector"},
		"too many markers": {[]string{"--image", red, "--mmproj", mmproj, "-p", "<__media__><__media__>"}, exitFailure, "2 markers"},
	} {
		_, errs, status := w.output(t, "", append([]string{"run", w.model, "-p", "x"}, tt.args...)...)
		if status != tt.status || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: status %d, want %d that says %q: %s", name, status, tt.status, tt.says, errs)
		}
	}
	if _, err := readBounded(red, 10); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large file: %v", err)
	}
}

// A chat goes on after an image that cannot be read.
func TestChatShowsImages(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer"})
	red, noise := w.file(t, "red.png", imagegen.PNG(16, 1)), w.file(t, "noise.png", []byte("noise"))
	term := w.terminal(t, "run", w.model, "--mmproj", w.projector(t), "--stats")
	term.expect("> ")
	term.say("/info\r")
	term.expect("images: true")
	term.say("/image " + noise + "x\r")
	term.expect("no such file")
	term.say("/image " + noise + "\r")
	term.expect("your next message")
	term.say("What is this?\r")
	term.expect("Failed to load image")
	term.say("/image " + red + "\r")
	term.expect("your next message")
	term.say("And this?\r")
	term.expect("an answer\r\n")
	term.end()
}

// A client of the service has images fetched by nobody: they come with the
// request, or not at all.
func TestServeFetchesNothing(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer other.Close()
	w := newWorld(t, fakellama.Script{Vision: true})
	s := w.serve(t)
	uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString(imagegen.PNG(16, 1))
	part := func(p string) string { return `{"messages":[{"role":"user","content":[` + p + `]}],"max_tokens":2}` }
	for name, tt := range map[string]struct {
		path, body string
		status     int
	}{
		"data":      {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `"}}`), 200},
		"words":     {"/v1/chat/completions", part(`{"type":"text","text":"see http://example.org"},{"type":"text","text":"\u0068ttp"}`), 200},
		"remote":    {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"escaped":   {"/chat/completions", part(`{"type":"image_url","image_url":{"url":"\u0068ttp` + other.URL[4:] + `"}}`), 400},
		"twice":     {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `","url":"` + other.URL + `"}}`), 400},
		"template":  {"/apply-template", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"sound":     {"/v1/chat/completions", part(`{"type":"input_audio","input_audio":{"data":"` + other.URL + `"}}`), 400},
		"video":     {"/v1/chat/completions", part(`{"type":"video_url","video_url":{"url":"` + other.URL + `"}}`), 400},
		"responses": {"/v1/responses", `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"` + other.URL + `"}]}]}`, 400},
		"anthropic": {"/v1/messages", part(`{"type":"image","source":{"type":"url","url":"` + other.URL + `"}}`), 400},
		"a file":    {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}`), 400},
		"no json":   {"/v1/chat/completions", `{"image_url":{"url":"` + other.URL + `"`, 400},
		"two texts": {"/v1/chat/completions", part(`{"type":"text","text":"http"}`) + "]", 400},
		"a mark":    {"/v1/chat/completions", "\ufeff" + part(`{"type":"image_url","image_url":{"url":"`+other.URL+`"}}`), 400},
	} {
		resp, err := http.Post(s.url+tt.path, "application/json", strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status {
			t.Errorf("%s: %d %s, %v; want %d", name, resp.StatusCode, got, err, tt.status)
		}
	}
	for header, value := range map[string]string{"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"} {
		if status, got := fetch(t, http.MethodPost, s.url+"/v1/chat/completions", "x", header, value); status != 400 {
			t.Errorf("%s %s: %d %s", header, value, status, got)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("somebody else was asked %d times", n)
	}
	s.end(t)
}
