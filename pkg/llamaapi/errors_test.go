package llamaapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// recorded returns a client of a server that answers every request with a recording.
func recorded(t *testing.T, status int, file string) *llamaapi.Client {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "v0.5.0", file))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return llamaapi.New(srv.URL, srv.Client())
}

func TestRecordedErrors(t *testing.T) {
	_, err := recorded(t, 400, "context.json").Completion(t.Context(), text("x"))
	var api *llamaapi.APIError
	if !errors.As(err, &api) || api.Status != 400 || api.PromptTokens != 705 || api.ContextLen != 512 ||
		!errors.Is(err, llamaapi.ErrContextExceeded) || !errors.Is(err, llamaapi.ErrInvalidRequest) {
		t.Errorf("context: %#v", err)
	}
	if !strings.Contains(err.Error(), "705") || !strings.Contains(err.Error(), "longer context") {
		t.Errorf("context: %v does not say what to do", err)
	}
	_, err = recorded(t, 501, "noembed.json").Embeddings(t.Context(), []llamaapi.Prompt{llamaapi.TextPrompt("x")})
	if !errors.Is(err, llamaapi.ErrNotSupported) || !strings.Contains(err.Error(), "--embeddings") {
		t.Errorf("embeddings: %v", err)
	}
}

func TestErrorsOfOtherServers(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"a proxy's page", "<html>Bad Gateway</html>", 502, "<html>Bad Gateway</html> (status 502)"},
		{"nothing", "", 503, "Service Unavailable (status 503)"},
		{"too much", strings.Repeat("é", 500), 500, strings.Repeat("é", 100) + "… (status 500)"},
		{"error of another form", `{"error":"text"}`, 500, `{"error":"text"} (status 500)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			}))
			defer srv.Close()
			err := llamaapi.New(srv.URL, srv.Client()).Health(t.Context())
			if err == nil || !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

// TestFaults checks the error of a stream for every fault.
func TestFaults(t *testing.T) {
	long := fakellama.Script{NeverEnds: true}
	for _, tc := range []struct {
		fault fakellama.Fault
		want  error
	}{
		{fakellama.Fault{Kind: fakellama.KindCut, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCut, AfterBytes: 500}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCrash, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCutRune, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindNoFinal, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindGarbage, AfterTokens: 3}, llamaapi.ErrMalformed},
		{fakellama.Fault{Kind: fakellama.KindOversize, AfterTokens: 3, Bytes: 1 << 20}, llamaapi.ErrEventTooLarge},
		{fakellama.Fault{Kind: fakellama.KindError, AfterTokens: 3, Status: 400}, llamaapi.ErrInvalidRequest},
		{fakellama.Fault{Kind: fakellama.KindStall, AfterTokens: 3}, context.Canceled},
	} {
		t.Run(string(tc.fault.Kind), func(t *testing.T) {
			script := long
			script.Faults = []fakellama.Fault{tc.fault}
			c, f := fake(t, script, llamaapi.WithMaxEventBytes(100_000))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := c.Completion(ctx, text("x"))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for range s.All() {
				if n++; n == 3 && tc.fault.Kind == fakellama.KindStall {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
			}
			if !errors.Is(s.Err(), tc.want) || n == 0 {
				t.Errorf("%d tokens, then %v; want %v", n, s.Err(), tc.want)
			}
			poll.Until(t, "an idle slot", func() bool { return f.Busy() == 0 })
		})
	}
}

// The server's own error for a body that is too large has no remedy.
func TestTooLargeErrorHasRemedy(t *testing.T) {
	err := &llamaapi.APIError{Status: http.StatusRequestEntityTooLarge, Message: "Request Entity Too Large"}
	if !strings.Contains(err.Error(), "100 MiB") || !strings.Contains(err.Error(), "shorten it") {
		t.Error(err)
	}
}
