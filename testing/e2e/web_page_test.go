//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"forge.lthn.ai/core/go-rocm/testing/e2e/browser"
	"forge.lthn.ai/core/go-rocm/testing/e2e/pages"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/request"
)

// pageKey is the API key of the service that the pages are tested with.
const pageKey = "the-key-of-the-page"

// serveTwoModels serves a trained model as "first" and "second", which are two processes
// since they differ in their slots.
func serveTwoModels(t *testing.T) *served {
	t.Helper()
	dir := t.TempDir()
	keys, config := filepath.Join(dir, "keys"), filepath.Join(dir, "config.toml")
	text := "[defaults]\ncache-ram = -1\n"
	for i, name := range []string{"first", "second"} {
		text += fmt.Sprintf("[models.%s]\nmodel = %q\nslots = %d\n", name, realModel(t, models.SmolLM2()), i+1)
	}
	if err := errors.Join(os.WriteFile(keys, []byte(pageKey+"\n"), 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return serve(t, "--config", config, "--api-key-file", keys)
}

// knownViolations returns the rules of axe-core that llama.cpp's page violates: the page
// is shown as upstream wrote it. docs/serve.md says what they mean for its users.
func knownViolations() []string { return []string{"nested-interactive", "page-has-heading-one"} }

// chatPage is llama.cpp's page in a tab.
type chatPage struct {
	*browser.Page
	t *testing.T
	s *served
}

// signIn opens a page without a session, enters a wrong key and then the right one.
func (p *chatPage) signIn(path string) {
	p.t.Helper()
	p.Goto(p.s.url + path)
	p.WaitFor(`location.pathname === "/sign-in" && document.activeElement?.id === "key"`)
	p.CheckAccessible()
	p.Type("#key", "a-wrong-key")
	p.Press(kb.Enter)
	p.WaitText("#failed", "not accepted")
	p.CheckAccessible()
	p.Forget() // the browser reports the answer 401
	p.Type("#key", pageKey)
	p.Press(kb.Enter)
	p.WaitFor(fmt.Sprintf("location.pathname === %q", path))
}

const (
	// lastQuestion and lastAnswer are expressions for elements of a chat. Others may be
	// missing: the page has only the messages near the visible ones.
	lastQuestion = `[...document.querySelectorAll(".chat-message-user-bubble")].at(-1)`
	lastAnswer   = `[...document.querySelectorAll(".chat-message-assistant")].at(-1)`
	chatInput    = "form textarea"
)

// choose chooses a model in the menu of the form, and waits until it is loaded.
func (p *chatPage) choose(model string) {
	p.t.Helper()
	const trigger = `[...document.querySelectorAll("form button")].find(b => ["first", "second"].includes(b.textContent.trim()))`
	p.WaitFor(trigger)
	p.ClickText("form button", browser.Eval[string](p.Page, trigger+".textContent.trim()"))
	// Not with the mouse: the menu sorts the models again when it has their states.
	p.WaitFor(fmt.Sprintf(`(() => {
		const option = [...document.querySelectorAll("[role=option]")].find(e => e.textContent.trim() === %q);
		option?.click();
		return option;
	})()`, model))
	p.WaitFor(fmt.Sprintf(`document.querySelector("[role=option]") === null && %s?.textContent.trim() === %q`, trigger, model))
	p.WaitFor(`document.querySelector("form .animate-spin") === null`)
}

// ask sends a question, and waits until the answer of the model grows.
func (p *chatPage) ask(model, question string) {
	p.t.Helper()
	p.Click(chatInput) // a menu that closes has the focus for a moment
	p.Type(chatInput, question)
	p.WaitFor(fmt.Sprintf("document.activeElement === document.querySelector(%[1]q) && document.activeElement.value === %[2]q", chatInput, question))
	p.ClickText("form button", "Send")
	p.WaitFor(fmt.Sprintf(`%[1]s?.textContent.trim() === %[2]q && %[3]s && %[1]s.compareDocumentPosition(%[3]s) & Node.DOCUMENT_POSITION_FOLLOWING`, lastQuestion, question, lastAnswer))
	for size := 50; size <= 200; size += 50 { // the answer grows while it is generated
		p.WaitFor(fmt.Sprintf("%s?.textContent.length > %d", lastAnswer, size))
	}
	p.WaitFor(fmt.Sprintf(`[...%s.querySelectorAll(".info button")].some(b => b.textContent.trim() === %q)`, lastAnswer, model))
}

// stopAnswer presses the button that stops an answer.
func (p *chatPage) stopAnswer() {
	p.t.Helper()
	p.ClickText("form button", "Stop")
	p.WaitFor(`[...document.querySelectorAll("form button")].some(b => b.textContent.trim() === "Send")`)
}

// checkStatus checks what the page /status shows after both models have answered, and
// unloads them there.
func (p *chatPage) checkStatus() {
	p.t.Helper()
	p.Goto(p.s.url + "/status") // the session of the other page
	p.WaitText("#connection", "Live")
	for _, model := range []string{"first", "second"} {
		p.WaitFor(pages.ModelState(model) + ` === "loaded"`)
		p.WaitFor(fmt.Sprintf(`[...document.querySelectorAll("#requests tr")].some(r => r.cells[1].textContent === %q && r.cells[4].textContent.startsWith("client-left") && Number(r.cells[7].textContent) > 0)`, model))
	}
	p.CheckAccessible()
	for _, model := range []string{"first", "second"} {
		p.Click(fmt.Sprintf(`[aria-label="Unload %s"]`, model))
		p.WaitFor(pages.ModelState(model) + ` === "unloaded"`)
	}
}

// TestWebPage uses the pages of a real service as a person does: it signs in, asks one
// model, stops the answer, asks the other one in the same chat, sees both on /status,
// unloads them and signs out.
func TestWebPage(t *testing.T) {
	s := serveTwoModels(t)
	b := browser.Start(t)
	for name, v := range browser.Views() {
		t.Run(name, func(t *testing.T) {
			p := &chatPage{Page: b.Open(t, v), t: t, s: s}
			p.signIn("/")
			// A setting of the page: answers do not end before a person stops them.
			browser.Eval[bool](p.Page, `localStorage.setItem("LlamaUi.config", JSON.stringify({customJson: JSON.stringify({ignore_eos: true, temperature: 0})})) ?? true`)
			p.Goto(s.url + "/")
			p.choose("first")
			p.ask("first", "Hello")
			p.stopAnswer()
			p.choose("second")
			p.ask("second", "And you?")
			p.stopAnswer()
			p.CheckAccessible(knownViolations()...)
			if browser.Eval[bool](p.Page, "document.documentElement.scrollWidth > innerWidth") {
				t.Error("the page is wider than the window")
			}
			if scripts := browser.Eval[string](p.Page, `JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])`); strings.Contains(scripts, pageKey) || strings.Contains(scripts, "gorocm") {
				t.Errorf("scripts see the key or the session: %s", scripts)
			}
			p.checkStatus()
			p.Click("#sign-out button")
			p.WaitFor(`location.pathname === "/sign-in" && document.getElementById("key") !== null`)
			p.Check(s.url)
		})
	}
	t.Run("sign in at status", func(t *testing.T) {
		p := &chatPage{Page: b.Open(t, browser.View{}), t: t, s: s}
		p.signIn("/status")
		p.WaitText("#connection", "Live")
		p.Goto(s.url + "/")
		p.WaitFor(fmt.Sprintf("document.querySelector(%q)", chatInput))
		p.Check(s.url)
	})
	t.Run("what stays off", func(t *testing.T) { s.checkOff(t) })
}

// checkOff checks that the service runs no tools and passes nothing on to other hosts,
// neither itself nor by llama-server.
func (s *served) checkOff(t *testing.T) {
	t.Helper()
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // in the answer
	}{
		{http.MethodGet, "/props", "", http.StatusOK, `"cors_proxy_enabled":false`},
		{http.MethodGet, "/tools", "", http.StatusOK, `[]`},
		{http.MethodPost, "/tools", `{"tool":"exec_shell_command","params":{"command":"id"}}`, http.StatusOK, `{"error":"this service runs no tools"}`},
		{http.MethodGet, "/cors-proxy?url=" + s.url, "", http.StatusNotFound, "no such endpoint"},
		{http.MethodPost, "/cors-proxy?url=" + s.url, "{}", http.StatusNotFound, "no such endpoint"},
		{http.MethodPost, "/mcp", "{}", http.StatusNotFound, "no such endpoint"},
	} {
		status, answer := s.requestWithKey(t, test.method, test.path, test.body)
		if status != test.status || !strings.Contains(answer, test.want) {
			t.Errorf("%s %s: %d %s", test.method, test.path, status, answer)
		}
	}
	if status, answer := s.requestWithKey(t, http.MethodPost, "/models/load", `{"model":"first","wait":true}`); status != http.StatusOK {
		t.Fatalf("load: %d %s", status, answer)
	}
	for _, pid := range children(t, s.cmd.Process.Pid) {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, arg := range strings.Split(string(args), "\x00") {
			if strings.HasPrefix(arg, "--tools") || strings.Contains(arg, "mcp") || strings.HasPrefix(arg, "--ui") || strings.HasPrefix(arg, "--webui") {
				t.Errorf("llama-server has the argument %s", arg)
			}
		}
	}
}

// requestWithKey returns the status and the text of an answer.
func (s *served) requestWithKey(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	got, err := request.SendJSON(t.Context(), method, s.url+path, pageKey, body)
	if err != nil {
		t.Fatal(err)
	}
	return got.Status, got.Body
}
