package gateway

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strings"
)

const (
	// maxBody is the largest accepted body in bytes; images travel inside it as
	// base64. llama-server has the same limit (CPPHTTPLIB_PAYLOAD_MAX_LENGTH in
	// cpp-httplib's httplib.h) and closes the connection without an answer.
	maxBody = 100 << 20
	// maxNesting is the deepest accepted nesting of JSON. llama-server walks
	// values recursively: some thousand levels overflow its stack, which ends the
	// requests of all clients.
	maxNesting = 1000
)

// validateRequest limits the body of a request and rejects remote media in it.
func (g *Gateway) validateRequest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := validateBody(w, r); err != nil {
			writeError(w, cmp.Or(statusFor(err), http.StatusBadRequest), "invalid_request_error", err.Error())
			return
		}
		next.ServeHTTP(w, r)
	})
}

func validateBody(w http.ResponseWriter, r *http.Request) error {
	chat := r.Method == http.MethodPost && isChat(r.URL.Path)
	if chat && strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") {
		return errEncoded
	}
	if err := limitBody(w, r); err != nil {
		return err
	}
	if chat {
		if err := rejectRemoteMedia(r); err != nil {
			return err
		}
	}
	return keepForReplay(r)
}

// limitBody limits the size and the nesting of a request's body: reading beyond
// them returns errTooLarge or errTooDeep.
//
// A body that is not a multipart form gets the content type JSON, whatever the
// client says: llama-server reads at most 1 MiB of the URL-encoded form that
// "curl -d" announces.
func limitBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > maxBody {
		return errTooLarge
	}
	for _, e := range r.Header.Values("Content-Encoding") {
		if e != "identity" {
			return errEncoded
		}
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	form := strings.TrimSpace(kind) == "multipart/form-data" // case-sensitive, as in cpp-httplib
	if !form {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Body = &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), form: form}
	return nil
}

// limitedBody counts brackets while the body is read. It recognises strings as
// valid JSON has them; llama-server rejects other text while it parses, which
// needs no recursion.
type limitedBody struct {
	io.ReadCloser

	form             bool // the fields of a form are text, which does not nest
	depth            int
	inString, escape bool
	err              error
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		err = errTooLarge
	case !b.form && !b.count(p[:n]):
		n, err = 0, errTooDeep
	}
	b.err = err
	return n, err
}

// count follows the nesting through p and reports whether it stays within
// maxNesting.
func (b *limitedBody) count(p []byte) bool {
	for _, c := range p {
		switch {
		case b.escape:
			b.escape = false
		case b.inString:
			b.escape, b.inString = c == '\\', c != '"'
		case c == '"':
			b.inString = true
		case c == '[' || c == '{':
			if b.depth++; b.depth > maxNesting {
				return false
			}
		case c == ']' || c == '}':
			b.depth--
		}
	}
	return true
}
