package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	"forge.lthn.ai/core/go-rocm/testing/cases"
)

// limit is how long one action may take. It is no limit on speed: only a test that
// fails takes that long.
const limit = 2 * time.Minute

// View is how a page is shown.
type View struct {
	// Width and Height are in CSS pixels; 0: 1440 by 900.
	Width, Height int64
	// Dark sets prefers-color-scheme to dark.
	Dark bool
}

// Views returns the views that pages are tested in, by name: each width in each colour, or in CI each width and
// each colour.
func Views() map[string]View {
	views := map[string]View{
		"wide light":  {Width: 1440, Height: 900},
		"narrow dark": {Width: 390, Height: 844, Dark: true},
	}
	if cases.Of(false, false, true) {
		views["wide dark"] = View{Width: 1440, Height: 900, Dark: true}
		views["narrow light"] = View{Width: 390, Height: 844}
	}
	return views
}

// Page is a tab.
type Page struct {
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc

	record
}

// Open opens an empty tab, whose cookies and storage no other tab has. It is closed at
// the end of the test.
func (b *Browser) Open(t testing.TB, v View) *Page {
	t.Helper()
	if v.Width == 0 {
		v.Width, v.Height = 1440, 900
	}
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	p := &Page{t: t}
	p.ctx, p.cancel = chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.observe))
	t.Cleanup(p.Close)
	// The first call creates the tab, which lives as long as the context of that call.
	if err := chromedp.Do(p.ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	p.Do(
		send(network.Enable, network.EnableParams{}),
		send(audits.Enable, cdp.Empty{}),
		send(performance.Enable, performance.EnableParams{}),
		chromedp.EmulateViewport(v.Width, v.Height),
		send(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
	)
	return p
}

// send returns an action that sends a command of the protocol.
func send[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// Close closes the tab. It may be called more than once.
func (p *Page) Close() { p.cancel() }

// Try runs an action and returns its value.
func Try[T any](p *Page, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	return chromedp.Run(ctx, a)
}

// Get is Try, and fails the test with what the page shows and reported.
func Get[T any](p *Page, a chromedp.Action[T]) T {
	p.t.Helper()
	v, err := Try(p, a)
	if err != nil {
		p.fail(err)
	}
	return v
}

// Eval returns the value of an expression of JavaScript, or the one that its promise
// resolves to. The policy of the page does not apply to the expression.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	return Get(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

func (p *Page) fail(err error) {
	p.t.Helper()
	text, textErr := Try(p, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	if textErr != nil {
		text = textErr.Error()
	}
	p.t.Fatalf("%v\nproblems: %s\ntext of the page:\n%s", err, strings.Join(p.Problems(), "\n"), text)
}

// Do runs actions in order.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	Get(p, chromedp.Steps(actions...))
}

// Goto opens a URL and waits until it is loaded.
func (p *Page) Goto(url string) {
	p.t.Helper()
	p.Do(chromedp.Navigate(url))
}

// navigated are parts of the errors of an expression whose page was left meanwhile.
var navigated = []string{"Inspected target navigated", "Execution context was destroyed", "Cannot find context", "Cannot find default execution context"}

// WaitFor waits until an expression of JavaScript is true, on this page or on the one
// that replaces it.
func (p *Page) WaitFor(expression string) {
	p.t.Helper()
	for begin := time.Now(); ; {
		_, err := Try(p, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(limit)))
		if err == nil {
			return
		}
		left := slices.ContainsFunc(navigated, func(text string) bool { return strings.Contains(err.Error(), text) })
		if !left || time.Since(begin) > limit {
			p.fail(fmt.Errorf("wait for %s: %w", expression, err))
		}
	}
}

// WaitText waits until an element of a CSS selector contains a text.
func (p *Page) WaitText(selector, text string) {
	p.t.Helper()
	p.WaitFor(fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.textContent.includes(%q))`, selector, text))
}

// Click clicks the first element of a CSS selector when it is visible and enabled.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.Do(chromedp.WaitEnabled(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// ClickText clicks the first element of a CSS selector whose text is the given one, when
// it is visible and enabled, has stopped moving, and nothing covers it.
func (p *Page) ClickText(selector, text string) {
	p.t.Helper()
	const mark = "data-clicked"
	p.WaitFor(fmt.Sprintf(`(() => {
		document.querySelectorAll("[%[1]s]").forEach(e => e.removeAttribute(%[1]q));
		const found = [...document.querySelectorAll(%[2]q)].find(e => e.checkVisibility() && e.textContent.trim() === %[3]q);
		found?.setAttribute(%[1]q, "");
		return found;
	})()`, mark, selector, text))
	p.WaitFor(fmt.Sprintf(`(() => {
		const e = document.querySelector("[%s]"), r = e.getBoundingClientRect();
		const at = [r.x, r.y, r.width, r.height].join();
		e.stillAt = e.seenAt === at ? e.stillAt + 1 : 0;
		e.seenAt = at;
		return e.stillAt >= 5 && e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2));
	})()`, mark))
	p.Click("[" + mark + "]")
}

// Type types a text into the first element of a CSS selector, key by key.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Do(chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// Press sends keys to the element that has the focus; package
// github.com/chromedp/chromedp/kb has the names of those without a character.
func (p *Page) Press(keys string) {
	p.t.Helper()
	p.Do(chromedp.KeyEvent(keys))
}

// Usage is the memory that a page uses.
type Usage struct {
	Nodes int64 // of the document, those of removed elements that are still referenced included
	Heap  int64 // bytes of JavaScript objects
}

// Usage returns the memory that the page uses after a garbage collection.
func (p *Page) Usage() Usage {
	p.t.Helper()
	p.Do(send(heapprofiler.CollectGarbage, cdp.Empty{}))
	metrics := Get(p, func(ctx context.Context, t *chromedp.Target) (performance.GetMetricsResult, error) {
		return cdp.Call(ctx, t, performance.GetMetrics, cdp.Empty{})
	})
	var u Usage
	for _, m := range metrics.Metrics {
		switch m.Name {
		case "Nodes":
			u.Nodes = int64(m.Value)
		case "JSHeapUsedSize":
			u.Heap = int64(m.Value)
		}
	}
	return u
}
