package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/chromedp/chromedp"

	"forge.lthn.ai/core/go-rocm/testing/models"
)

// axeCore is axe.min.js of axe-core 4.12.1 (MPL-2.0), which a package of the Python index
// contains: that of npm's package axe-core 4.12.1, with a newline at its end.
func axeCore() models.Model {
	return models.Model{
		File:   "axe-core-4.12.1.min.js",
		Size:   572600,
		SHA256: "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc",
		Parts:  []models.Part{{Distribution: "axe-playwright-python==0.1.8", Member: "axe_playwright_python/axe.min.js"}},
	}
}

// axeViolation is a rule of axe-core that elements of a page violate.
type axeViolation struct {
	ID    string `json:"id"`
	Help  string `json:"help"`
	Nodes []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

// axeResult is the part of a result of axe-core that the tests use.
type axeResult struct {
	Violations []axeViolation `json:"violations"`
	Passes     int            `json:"passes"`
}

// CheckAccessible fails the test if axe-core finds that the page violates a rule of WCAG
// 2.2 at level AA, or a best practice. Rules that are in known, by their names in
// axe-core, may be violated.
func (p *Page) CheckAccessible(known ...string) {
	p.t.Helper()
	for _, v := range p.violations() {
		if !slices.Contains(known, v.ID) {
			p.t.Error("axe-core: " + v.String())
		}
	}
}

// String returns the rule and the elements.
func (v *axeViolation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", v.ID, v.Help)
	for _, n := range v.Nodes {
		fmt.Fprintf(&b, "\n%s\n%s", n.HTML, n.Summary)
	}
	return b.String()
}

// violations returns the rules that the page violates. The script is run by the
// protocol, to which the policy of the page does not apply.
func (p *Page) violations() []axeViolation {
	p.t.Helper()
	path, err := models.Fetch(p.t.Context(), axeCore())
	if err != nil {
		p.t.Fatal(err)
	}
	script, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Do(chromedp.Evaluate[chromedp.Void](string(script) + "\n;undefined"))
	var r axeResult
	text := Eval[string](p, `axe.run(document, {preload: false}).then(r => JSON.stringify({violations: r.violations, passes: r.passes.length}))`)
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		p.t.Fatalf("read the result of axe-core: %v", err)
	}
	if r.Passes == 0 {
		p.t.Error("axe-core checked no rule")
	}
	return r.Violations
}
