package gateway

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// docs/serve.md lists every route, with or without the prefix /v1, and no other.
func TestDocumentListsRoutes(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(raw), "## Routes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := map[string]bool{}
	for i, code := range strings.Split(table, "`") {
		path, _, _ := strings.Cut(code[strings.LastIndexByte(code, ' ')+1:], "?") // without method and query
		if i%2 == 1 && strings.HasPrefix(path, "/") && path != "/v1" {
			documented[path] = true
		}
	}
	known := routes()
	for path := range known {
		if !documented[path] && !documented["/v1"+path] {
			t.Errorf("docs/serve.md lacks %s", path)
		}
	}
	s := newSignInServer(t)
	for path := range documented {
		if _, ok := s.gateway.findRoute(path); ok {
			continue
		}
		// Pages are no routes: they are answered before a key is asked for.
		if got := s.do(http.MethodGet, path, "", "Accept", "text/html").status; got != http.StatusOK && got != http.StatusSeeOther {
			t.Errorf("docs/serve.md has %s, which is answered with %d", path, got)
		}
	}
}
