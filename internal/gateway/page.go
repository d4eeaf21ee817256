package gateway

import (
	"io"
	"net/http"

	"forge.lthn.ai/core/go-rocm/internal/statuspage"
)

// Page is the web page of the service. *webui.Page implements it.
type Page interface {
	http.Handler
	// Has reports whether a path belongs to the page.
	Has(path string) bool
}

// missingPage is a Page of a program that was built without one: it says so.
type missingPage struct{ err error }

// MissingPage returns a page that says why there is none.
func MissingPage(err error) Page { return missingPage{err} }

// Has implements Page.
func (missingPage) Has(path string) bool { return path == "/" }

// ServeHTTP implements http.Handler.
func (p missingPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isVisit(r) {
		writeError(w, http.StatusNotFound, "not_found_error", p.err.Error())
		return
	}
	writePage(w, http.StatusNotFound, signInPage{
		Title: "No web page", Text: "The service runs, and programs can use it: " + p.err.Error() + ".",
	})
}

// isPageStart reports whether a path is one of those that people open. The other files
// of the pages are public: they are the same in every release and contain no secret.
func isPageStart(path string) bool {
	return path == "/" || path == "/index.html" || path == statuspage.Path
}

// hasPages reports whether the service has a page, and thus a way to sign in.
func (g *Gateway) hasPages() bool { return g.page != nil || !g.noStatusPage }

// pageOf returns the page with a path: the web page, or the page /status. It is nil if
// there is none.
func (g *Gateway) pageOf(path string) http.Handler {
	switch {
	case !g.noStatusPage && statusPage.Has(path):
		return statusPage
	case g.page != nil && g.page.Has(path):
		return g.page
	}
	return nil
}

// servePublicPage answers for the files of the pages that need no key, and for signing
// in and out.
func (g *Gateway) servePublicPage(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		page := g.pageOf(path)
		switch {
		case path == signInPath && g.hasPages():
			g.serveSignIn(w, r)
		case path == signOutPath && g.hasPages():
			g.serveSignOut(w, r)
		case page != nil && !isPageStart(path):
			page.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// servePage answers for the pages themselves, and the web page's requests for what this
// service does not offer: the tools that llama-server runs on request, and the answers
// that it goes on with after the client has left. There are none of either.
func (g *Gateway) servePage(next http.Handler) http.Handler {
	_, missing := g.page.(missingPage)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		page := g.pageOf(path)
		switch {
		case page != nil && isPageStart(path):
			page.ServeHTTP(w, r)
		case g.page == nil || missing:
			next.ServeHTTP(w, r)
		case path == "/tools" && r.Method == http.MethodGet,
			path == "/v1/streams/lookup" && r.Method == http.MethodPost:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, "[]")
		case path == "/tools" && r.Method == http.MethodPost: // the page asks for one when a chat begins
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, `{"error":"this service runs no tools"}`)
		case path == "/v1/stream" && r.Method == http.MethodDelete:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, `{"success":true}`) // the connection's end has stopped the answer
		default:
			next.ServeHTTP(w, r)
		}
	})
}
