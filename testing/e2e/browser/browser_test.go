//go:build e2e

package browser

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// site serves a page with a policy that allows the scripts of its own origin alone.
func site(t *testing.T, body, script string) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src *; img-src 'self' data:")
		fmt.Fprintf(w, "<!doctype html><html lang=en><title>A page</title><link rel=icon href=data:,><main><h1>A page</h1>%s</main><script src=/page.js></script>", body)
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, script)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// TestSeesWhatPagesDoWrong opens pages with one mistake each.
func TestSeesWhatPagesDoWrong(t *testing.T) {
	b := Start(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}))
	t.Cleanup(other.Close)
	const done = `document.querySelector("h1").textContent = "Done";`
	for _, test := range []struct{ name, body, script, want string }{
		{"nothing", "", done, ""},
		{"error of the console", "", `console.error("no", 7);` + done, "console: error: \"no\" 7"},
		{"exception", "", done + `null.x`, "exception: Uncaught TypeError"},
		{"rejected promise", "", done + `Promise.reject(new Error("late"))`, "late"},
		{"missing file", "<img src=/missing.png alt=missing>", `addEventListener("load", () => {` + done + `})`, "404"},
		{"inline script", "<button onclick='x()'>x</button>", done, "content security policy: script-src"},
		{"inline style", "<p style='color:red'>x</p>", done, "content security policy: "},
		{"script as text", "", `try { eval("1") } catch {}` + done, "content security policy: script-src"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := site(t, test.body, test.script)
			p := b.Open(t, View{})
			p.Goto(address)
			p.WaitText("h1", "Done")
			if test.want == "" {
				p.CheckAccessible()
				p.Check(address)
				return
			}
			p.WaitFor("true")
			if !slices.ContainsFunc(p.Problems(), func(s string) bool { return strings.Contains(s, test.want) }) {
				t.Errorf("it reported %q, want %q", p.Problems(), test.want)
			}
		})
	}
	t.Run("request to another origin", func(t *testing.T) {
		address := site(t, "", fmt.Sprintf("fetch(%q).then(() => {%s})", other.URL, done))
		p := b.Open(t, View{})
		p.Goto(address)
		p.WaitText("h1", "Done")
		if got := p.Origins(); !slices.Equal(got, []string{address, other.URL}) {
			t.Errorf("it sent requests to %q", got)
		}
	})
	t.Run("inaccessible", func(t *testing.T) {
		p := b.Open(t, View{})
		p.Goto(site(t, "<img src=data:, ><input>", done))
		p.WaitText("h1", "Done")
		found := &failures{TB: t}
		p.t = found
		p.CheckAccessible()
		if text := strings.Join(found.messages, "\n"); !strings.Contains(text, "image-alt") || !strings.Contains(text, "label") {
			t.Errorf("axe-core found %s", text)
		}
		found.messages = nil
		p.CheckAccessible("image-alt")
		if text := strings.Join(found.messages, "\n"); strings.Contains(text, "image-alt") || !strings.Contains(text, "label") {
			t.Errorf("with a known violation, axe-core found %s", text)
		}
	})
}

// failures is a test that notes failures instead of failing.
type failures struct {
	testing.TB

	messages []string
}

func (f *failures) Error(args ...any) {
	f.messages = append(f.messages, fmt.Sprint(args...))
}

func (f *failures) Errorf(format string, args ...any) {
	f.messages = append(f.messages, fmt.Sprintf(format, args...))
}

// TestViews checks that a page has the width and the colours that a test requests.
func TestViews(t *testing.T) {
	b := Start(t)
	address := site(t, "<input id=in aria-label=text><button id=b>Go</button>",
		`document.getElementById("b").onclick = () => { document.querySelector("h1").textContent = document.getElementById("in").value }`)
	for _, v := range []View{{}, {Width: 390, Height: 844, Dark: true}} {
		p := b.Open(t, v)
		p.Goto(address)
		want := v.Width
		if want == 0 {
			want = 1440
		}
		if got := Eval[int64](p, "innerWidth"); got != want {
			t.Errorf("%+v: the page has %d pixels", v, got)
		}
		if got := Eval[bool](p, `matchMedia("(prefers-color-scheme: dark)").matches`); got != v.Dark {
			t.Errorf("%+v: dark: %v", v, got)
		}
		p.Type("#in", "hello")
		p.Click("#b")
		p.WaitText("h1", "hello")
		if u := p.Usage(); u.Nodes == 0 || u.Heap == 0 {
			t.Errorf("%+v: it uses %+v", v, u)
		}
		if img := p.Screenshot(); len(img) < 100 {
			t.Errorf("%+v: an image of %d bytes", v, len(img))
		}
		p.Check(address)
	}
}

// TestSaysHowToInstallChromium names the package when the program is missing.
func TestSaysHowToInstallChromium(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(EnvChromium, "")
	if _, err := find(); err == nil || !strings.Contains(err.Error(), "apt-get install --no-install-recommends chromium") {
		t.Errorf("got %v", err)
	}
}
