package cli

import (
	"bytes"
	"errors"
	"testing"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
)

// TestPrintPage prints the addresses that a browser can open.
func TestPrintPage(t *testing.T) {
	t.Parallel()
	missing := gateway.MissingPage(errors.New("not built in"))
	for _, test := range []struct {
		page      gateway.Page
		url, want string
	}{
		{missing, "http://0.0.0.0:8080", "status: http://localhost:8080/status\n"},
		{missing, "unix:/run/s.sock", ""},
		{nil, "http://127.0.0.1:8080", ""},
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		if printPage(cmd, test.page, test.url); out.String() != test.want {
			t.Errorf("%s: %q, want %q", test.url, &out, test.want)
		}
	}
}

func TestBrowserURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://127.0.0.1:8080": "http://127.0.0.1:8080", "http://0.0.0.0:8080": "http://localhost:8080", "https://[::]:443": "https://localhost:443",
		"http://192.0.2.1:1": "http://192.0.2.1:1", "http://[::1]:1": "http://[::1]:1",
	} {
		if got := browserURL(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}
