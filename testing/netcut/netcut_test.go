package netcut

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// One connection breaks, after exactly as many bytes as were asked for, and no other.
func TestCutterBreaksOnce(t *testing.T) {
	const text = "0123456789"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	defer s.Close()
	var c Cutter
	client := &http.Client{Transport: c.Transport()}
	get := func() (string, error) {
		res, err := client.Get(s.URL)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		raw, err := io.ReadAll(res.Body)
		return string(raw), err
	}
	var whole int
	for n := 0; ; n++ {
		client.CloseIdleConnections()
		c.After(n)
		got, err := get()
		if !c.Done() { // the answer has fewer bytes
			if whole = n; got != text || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			break
		}
		if !strings.HasPrefix(text, got) {
			t.Errorf("after %d bytes: %q", n, got)
		}
		if got, err := get(); got != text || err != nil {
			t.Errorf("the next one after %d bytes: %q, %v", n, got, err)
		}
	}
	if whole < len(text)+len("HTTP/1.1 200 OK\r\n") {
		t.Errorf("the answer was whole after %d bytes", whole)
	}
}
