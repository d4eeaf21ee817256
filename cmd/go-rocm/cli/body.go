package cli

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

const (
	// maxBody bounds a request, in bytes; images travel inside as base64. It is
	// what llama-server takes (CPPHTTPLIB_PAYLOAD_MAX_LENGTH in cpp-httplib's
	// httplib.h), which refuses more without a word.
	maxBody = 100 << 20
	// maxNesting bounds how deep JSON is nested. llama-server walks values by
	// recursion: with some thousand levels it overflows its stack and dies, with
	// all that others have asked for.
	maxNesting = 1000
)

var (
	errTooLarge = errors.New("the request is larger than 100 MiB, and llama-server takes no more")
	errTooDeep  = errors.New("the JSON is nested more than 1000 levels deep, and llama-server could die of it")
	errEncoded  = errors.New("the body must be JSON as it is, neither compressed nor a form")
)

// bounded lets the body of a request be read as far as llama-server bears it:
// reading more gives errTooLarge or errTooDeep. A body that is no form is called
// JSON, whatever the client calls it: as the form that "curl -d" says it is,
// llama-server takes no more than 1 MiB.
func bounded(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > maxBody {
		return errTooLarge
	}
	for _, e := range r.Header.Values("Content-Encoding") {
		if e != "identity" {
			return errEncoded
		}
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	form := strings.TrimSpace(kind) == "multipart/form-data" // to the letter, as cpp-httplib compares it
	if !form {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Body = &boundedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), form: form}
	return nil
}

// boundedBody counts brackets while it is read. Strings are told apart as in
// valid JSON; what is not valid llama-server refuses while it parses, which
// takes no recursion.
type boundedBody struct {
	io.ReadCloser

	form            bool // its fields are texts, which do not nest
	depth           int
	quoted, escaped bool
	failed          error
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	n, err := b.ReadCloser.Read(p)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		err = errTooLarge
	case !b.form && !b.count(p[:n]):
		n, err = 0, errTooDeep
	}
	b.failed = err
	return n, err
}

// count follows the nesting through p and reports whether it stays in bounds.
func (b *boundedBody) count(p []byte) bool {
	for _, c := range p {
		switch {
		case b.escaped:
			b.escaped = false
		case b.quoted:
			b.escaped, b.quoted = c == '\\', c != '"'
		case c == '"':
			b.quoted = true
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

// refused is the status for a request whose body is at fault, 0 where it is not.
func refused(err error) int {
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errTooDeep), errors.Is(err, errEncoded), errors.Is(err, errNotJSON), errors.Is(err, errRemoteMedia):
		return http.StatusBadRequest
	}
	return 0
}
