package browser

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
)

// record is what a page reported since it was opened.
type record struct {
	mu       sync.Mutex
	problems []string
	origins  []string
}

// observe receives the events of the protocol.
func (r *record) observe(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var text []string
			for _, a := range e.Args {
				text = append(text, strings.Trim(string(a.Value)+" "+a.Description, " "))
			}
			r.addProblem("console", string(e.Type)+": "+strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		text := d.Text
		if d.Exception != nil {
			text += " " + d.Exception.Description
		}
		r.addProblem("exception", fmt.Sprintf("%s (%s:%d)", text, d.URL, d.LineNumber+1))
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			r.addProblem(string(e.Entry.Source), e.Entry.Text+" "+e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		if csp := e.Issue.Details.ContentSecurityPolicyIssueDetails; csp != nil {
			r.addProblem("content security policy", csp.ViolatedDirective+" "+csp.BlockedURL)
		}
	case *network.EventRequestWillBeSent:
		r.addRequest(e.Request.URL)
	case *network.EventWebSocketCreated:
		r.addRequest(e.URL)
	}
}

func (r *record) addProblem(kind, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, kind+": "+text)
}

// addRequest adds the origin of a URL, unless the URL contains its data.
func (r *record) addRequest(address string) {
	u, err := url.Parse(address)
	if err != nil {
		r.addProblem("request", err.Error())
		return
	}
	if u.Scheme == "data" || u.Scheme == "blob" || u.Scheme == "about" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if origin := u.Scheme + "://" + u.Host; !slices.Contains(r.origins, origin) {
		r.origins = append(r.origins, origin)
	}
}

// Problems returns the errors and warnings that the page reported: messages of the
// console, exceptions, failed requests, and violations of the content security policy.
func (r *record) Problems() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.problems)
}

// Origins returns the origins that the page sent requests to, such as
// "http://127.0.0.1:8080", in the order of the first request.
func (r *record) Origins() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.origins)
}

// Forget removes the problems that a test has provoked.
func (r *record) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = nil
}

// Check fails the test if the page reported a problem, or sent a request to another
// origin than that of the URL.
func (p *Page) Check(address string) {
	p.t.Helper()
	for _, problem := range p.Problems() {
		p.t.Error(problem)
	}
	u, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, origin := range p.Origins() {
		if origin != u.Scheme+"://"+u.Host {
			p.t.Errorf("the page sent a request to %s", origin)
		}
	}
}
