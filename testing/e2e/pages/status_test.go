//go:build e2e

package pages

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/e2e/browser"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/request"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

var (
	updateScreenshots = flag.Bool("update-screenshots", false, "write the screenshots of docs/images")
	soak              = flag.Duration("soak", 0, "how long TestStatusDoesNotGrow sends events (default: until 2000 are sent)")
)

// screenshots is the directory of the documentation's images.
const screenshots = "../../../docs/images"

// twoModels are a model that can be loaded, and one whose process has failed.
func twoModels() []rocm.ModelStatus {
	return []rocm.ModelStatus{
		{
			Name: "chat", Size: 4_900_000_000, Context: 8192, State: rocm.ModelUnloaded, Fits: true, ChatTemplate: true,
			Why: []string{"all 32 layers fit on the card", "the context is 8192 tokens for each of 4 slots"},
		},
		{
			Name: "broken", Size: 600_000_000, State: rocm.ModelFailed,
			Cause: &supervise.ExitError{Code: 1, State: supervise.Loading, Kind: supervise.ErrModelInvalid, Line: "invalid magic", Remedy: "download the file again", Log: []string{"llama_model_load: error", "invalid magic <b>not bold</b>"}},
		},
	}
}

// card is that of a fixture.
func card(t *testing.T) func() []activity.Card {
	t.Helper()
	devices, err := gpu.NewFS(sysroot.Write(t, "rx7900xtx", nil)).Devices()
	if err != nil || len(devices) == 0 {
		t.Fatal(devices, err)
	}
	d := devices[0]
	return func() []activity.Card {
		return []activity.Card{{PCI: d.PCI, Name: d.Name, Total: d.VRAMTotal, Used: d.VRAMTotal / 2, Ours: d.VRAMTotal / 3, Known: true, Sensors: d.Sensors}}
	}
}

// openStatus opens the page and waits until it shows the state of the service.
func openStatus(t *testing.T, b *browser.Browser, s *service, v browser.View) *browser.Page {
	t.Helper()
	p := b.Open(t, v)
	p.Goto(s.url + "/status")
	p.WaitText("#connection", "Live")
	return p
}

// ask sends a request of a chat, and returns the answer.
func (s *service) ask(t *testing.T, model, key string) (int, string) {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"Hello"}]}`, model)
	got, err := request.SendJSON(t.Context(), http.MethodPost, s.url+"/v1/chat/completions", key, body)
	if err != nil {
		t.Fatal(err)
	}
	return got.Status, got.Body
}

// TestStatus uses the page at all widths and colours.
func TestStatus(t *testing.T) {
	b := browser.Start(t)
	for name, v := range browser.Views() {
		t.Run(name, func(t *testing.T) {
			s := start(t, options{models: twoModels(), cards: card(t), script: fakellama.Script{Reply: "Hello, world!"}})
			p := openStatus(t, b, s, v)
			p.WaitFor(ModelState("chat") + ` === "unloaded"`)
			p.WaitFor(ModelState("broken") + ` === "failed"`)
			p.WaitText("#cards h3", "7900")
			p.WaitText("#model-list .plan li", "all 32 layers fit on the card")
			p.WaitText("#model-list .failure .remedy", "download the file again")
			p.WaitText("#model-list .failure pre", "<b>not bold</b>")
			p.CheckAccessible()

			p.Click(`[aria-label="Load chat"]`)
			p.WaitFor(ModelState("chat") + ` === "loaded"`)
			if status, answer := s.ask(t, "chat", ""); status != http.StatusOK || !strings.Contains(answer, "[DONE]") {
				t.Errorf("answered %d %s", status, answer)
			}
			p.WaitText("#requests tr", "/v1/chat/completions")
			p.WaitText("#requests tr .state-cell", "ok")
			p.Click("#model-list .failure summary")
			p.CheckAccessible()
			if *updateScreenshots {
				write(t, p, "status-"+strings.ReplaceAll(name, " ", "-")+".png")
			}
			p.Click(`[aria-label="Unload chat"]`)
			p.WaitFor(ModelState("chat") + ` === "unloaded"`)
			p.WaitText("#announcement", "chat: unloaded")
			if wide := browser.Eval[bool](p, "document.documentElement.scrollWidth > innerWidth"); wide {
				t.Error("the page is wider than the window")
			}
			p.Check(s.url)
		})
	}
}

// write writes a screenshot.
func write(t *testing.T, p *browser.Page, name string) {
	t.Helper()
	img := p.Screenshot()
	if len(img) > 100<<10 {
		t.Errorf("%s has %d bytes", name, len(img))
	}
	if err := os.MkdirAll(screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screenshots, name), img, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestStatusByKeyboard loads a model without a mouse.
func TestStatusByKeyboard(t *testing.T) {
	s := start(t, options{models: twoModels()})
	p := openStatus(t, browser.Start(t), s, browser.View{})
	focus := `document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.id ?? document.activeElement?.textContent`
	p.Press(kb.Tab)
	p.WaitFor(`document.activeElement.className === "skip"`)
	p.Press(kb.Enter)
	p.WaitFor(`document.activeElement.id === "models"`)
	seen := ""
	for range 10 {
		p.Press(kb.Tab)
		if seen = browser.Eval[string](p, focus); seen == "Load chat" {
			break
		}
	}
	if seen != "Load chat" {
		t.Fatalf("the focus is at last on %q", seen)
	}
	p.Press(kb.Enter)
	p.WaitFor(ModelState("chat") + ` === "loaded"`)
	p.Check(s.url)
}

// TestStatusSignIn signs in with a wrong key, with a key without limits, and with one
// that must not unload.
func TestStatusSignIn(t *testing.T) {
	const whole = "the-whole-key"
	limited, sum := gateway.NewKey()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(whole+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, options{models: twoModels(), files: gateway.CredentialFiles{
		KeyFile: keys, Named: []gateway.Key{{Name: "guest", SHA256: sum, Models: []string{"chat"}}},
	}})
	b := browser.Start(t)
	signIn := func(p *browser.Page, key string) {
		p.Goto(s.url + "/status")
		p.WaitFor(`location.pathname === "/sign-in" && document.activeElement.id === "key"`)
		p.Type("#key", key)
		p.Press(kb.Enter)
	}

	p := b.Open(t, browser.View{Width: 390, Height: 844})
	p.Goto(s.url + "/status")
	p.WaitFor(`document.activeElement.id === "key"`)
	p.CheckAccessible()
	signIn(p, "a-wrong-key")
	p.WaitText("#failed", "not accepted")
	p.CheckAccessible()
	p.Forget() // the browser reports the answer 401
	signIn(p, whole)
	p.WaitText("#connection", "Live")
	p.WaitFor(ModelState("broken") + ` === "failed"`)
	p.WaitText("#model-list .failure pre", "invalid magic")
	if got := browser.Eval[string](p, `JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])`); got != fmt.Sprintf(`[{},{},"",%q]`, s.url+"/status") {
		t.Errorf("scripts see the session: %s", got)
	}
	p.Goto(s.url + "/status") // the browser keeps the session
	p.WaitText("#connection", "Live")
	p.CheckAccessible()
	p.Click("#sign-out button")
	p.WaitFor(`location.pathname === "/sign-in" && document.getElementById("key") !== null`)
	p.Check(s.url)

	p = b.Open(t, browser.View{})
	signIn(p, limited)
	p.WaitText("#connection", "Live")
	p.WaitFor(ModelState("chat") + ` === "unloaded"`)
	if got := browser.Eval[bool](p, `!!(`+ModelState("broken")+`)`); got {
		t.Error("the key sees a model that it must not use")
	}
	if hidden := browser.Eval[bool](p, `document.getElementById("cards-section").hidden && document.getElementById("plots-section").hidden`); !hidden {
		t.Error("the key gets no samples, and the page shows cards and plots")
	}
	p.Click(`[aria-label="Load chat"]`)
	p.WaitFor(ModelState("chat") + ` === "loaded"`)
	if off := browser.Eval[bool](p, `document.querySelector('[aria-label="Unload chat"]').disabled`); !off {
		t.Error("a key with limits can press the button that unloads")
	}
	p.Check(s.url)
}

// TestStatusDoesNotGrow keeps a page open while many requests run.
func TestStatusDoesNotGrow(t *testing.T) {
	s := start(t, options{models: twoModels(), cards: card(t)})
	p := openStatus(t, browser.Start(t), s, browser.View{})
	sent := 0
	record := func() {
		r := s.log.Begin(activity.Record{Time: time.Now(), Route: "/v1/chat/completions", Method: http.MethodPost, Model: "chat"})
		r.Tokens(1, time.Now())
		r.End(time.Now(), func(r *activity.Record) { r.Outcome, r.Status, r.GeneratedTokens = activity.OK, http.StatusOK, 20 })
		s.models.set("chat", func(m *rocm.ModelStatus) { m.Leases = sent % 3 })
		sent++
	}
	shown := func() {
		p.WaitFor(fmt.Sprintf(`document.querySelectorAll("#requests tr").length === 50 && Number(document.querySelector("#requests tr").dataset.seq) === %d`, sent))
	}
	for range 200 {
		record()
	}
	shown()
	before := p.Usage()
	begin := time.Now()
	for n := 0; n < 2000 || time.Since(begin) < *soak; n++ {
		record()
		if n%50 == 49 {
			shown() // the page has drawn them: the test is not faster than the page
		}
	}
	shown()
	after := p.Usage()
	t.Logf("%d requests: %+v before, %+v after", sent, before, after)
	if after.Nodes > before.Nodes+before.Nodes/5 {
		t.Errorf("the page grew from %d to %d nodes", before.Nodes, after.Nodes)
	}
	if after.Heap > before.Heap+2<<20 {
		t.Errorf("the heap of the page grew from %d to %d bytes", before.Heap, after.Heap)
	}
	p.Check(s.url)
}
