package gateway

import (
	_ "embed" // the page is part of the program
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/webui"
)

const (
	signInPath  = "/sign-in"
	signOutPath = "/sign-out"
	// maxSignIn limits the form of the sign-in page, in bytes.
	maxSignIn = 8 << 10
)

//go:embed signin.html
var signInText string

var (
	signInTemplate = template.Must(template.New("sign-in").Parse(signInText))
	// signInPolicy is the Content-Security-Policy of the service's small pages: no
	// script, and the style sheet of the page itself.
	signInPolicy = "default-src 'none'; style-src " + strings.Join(webui.StyleHashes([]byte(signInText)), " ") +
		"; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// signInPage is the data of signin.html.
type signInPage struct {
	Title, Text string
	Form        bool   // ask for the key
	SignedIn    bool   // offer to sign out
	Next        string // the path to go to afterwards
	Failed      string // why the last attempt failed
}

// writePage answers with a small page of the service.
func writePage(w http.ResponseWriter, status int, p signInPage) {
	h := w.Header()
	webui.SetSecurityHeaders(h, signInPolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = signInTemplate.Execute(w, p) // an error means that the client has gone
}

// serveSignIn answers /sign-in: GET shows a form, or that the browser is signed in,
// and POST starts a session with the key in the form.
func (g *Gateway) serveSignIn(w http.ResponseWriter, r *http.Request) {
	c := g.credentials.current.Load()
	next := localPath(r.URL.Query().Get("next"))
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		writeError(w, http.StatusMethodNotAllowed, "invalid_request_error", signInPath+" accepts only GET and POST")
	case len(c.keys) == 0:
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // a path of this service; there is nothing to sign in with
	case r.Method == http.MethodPost:
		g.signIn(w, r, c)
	default:
		key, ok := g.sessions.find(sessionToken(r), c)
		if !ok {
			writePage(w, http.StatusOK, signInPage{Title: "Sign in", Form: true, Next: next})
			return
		}
		text := "This browser is signed in with a key of the key file."
		if key.named != nil {
			text = fmt.Sprintf("This browser is signed in with the key %q.", key.named.Name)
		}
		writePage(w, http.StatusOK, signInPage{Title: "Signed in", Text: text, SignedIn: true, Next: next})
	}
}

// signIn starts a session with the key of the form, if the request is of the service's
// own page: another one must not sign a person in under a key of its own.
func (g *Gateway) signIn(w http.ResponseWriter, r *http.Request, c *credentials) {
	if !isOwnPage(r) {
		writeError(w, http.StatusForbidden, "permission_error", "the form of another page cannot sign in here; open "+signInPath+" of this service")
		return
	}
	form, err := readForm(w, r)
	if err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request_error", "the form cannot be read: "+err.Error())
		return
	}
	page := signInPage{Title: "Sign in", Form: true, Next: localPath(form.Get("next"))}
	address := clientNetwork(r)
	if wait := roundUp(g.sessions.mayTry(address)); g.sessions.mayTry(address) > 0 {
		setRetryAfter(w, wait)
		page.Failed = fmt.Sprintf("Too many wrong keys. Try again in %s.", wait)
		writePage(w, http.StatusTooManyRequests, page)
		return
	}
	key := strings.TrimSpace(form.Get("key"))
	if _, ok := c.find(key); !ok {
		g.sessions.failed(address)
		g.log.Warn("a wrong key was entered on the sign-in page", "client", r.RemoteAddr)
		page.Failed = "This key is not accepted. Check it, or ask the person who runs the service for one."
		writePage(w, http.StatusUnauthorized, page)
		return
	}
	http.SetCookie(w, sessionCookie(r, g.sessions.create(key)))
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, page.Next, http.StatusSeeOther)
}

// readForm reads the form of a POST request.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if t := r.Header.Get("Content-Type"); t != "application/x-www-form-urlencoded" {
		return nil, errors.New("its type is not application/x-www-form-urlencoded")
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSignIn))
	if err != nil {
		return nil, err
	}
	return url.ParseQuery(string(text))
}

// serveSignOut answers POST /sign-out: it ends the session of the browser.
func (g *Gateway) serveSignOut(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		writeError(w, http.StatusMethodNotAllowed, "invalid_request_error", signOutPath+" accepts only POST")
		return
	case !isOwnPage(r):
		writeError(w, http.StatusForbidden, "permission_error", "the form of another page cannot sign out here")
		return
	}
	if token := sessionToken(r); token != "" {
		g.sessions.end(token)
	}
	http.SetCookie(w, sessionCookie(r, ""))
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, signInPath, http.StatusSeeOther)
}

// localPath returns a path of this service that a person asked for before signing in;
// "/" for anything else, such as the address of another service.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") ||
		strings.ContainsAny(next, "\\\r\n\t") || slices.Contains([]string{signInPath, signOutPath}, u.Path) {
		return "/"
	}
	return u.RequestURI()
}

// isVisit reports whether a person opens an address in a browser, in contrast to a
// program or a script of a page.
func isVisit(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}
