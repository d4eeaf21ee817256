package pull

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
)

// A lock that is accepted names only files that stay in their directory, and
// addresses that stay on the hub.
func FuzzLock(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"version":1}`, `{"version":1,"models":[{"name":"hf:o/r:Q8_0","revision":"c","files":[{"name":"m.gguf","role":"model","size":3,"url":"https://h/o/r/resolve/c/m.gguf","sha256":"` + strings.Repeat("ab", 32) + `"}]}]}`,
	} {
		f.Add(s)
	}
	p := &Puller{Hub: &hub.Hub{Endpoint: &url.URL{Scheme: "https", Host: "hub.test"}}}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseLock([]byte(s))
		if err != nil {
			if !errors.Is(err, ErrLock) {
				t.Fatal(err)
			}
			return
		}
		for _, r := range l.Models {
			for _, file := range r.Files {
				if !modelref.ValidFile(file.Name) || strings.Contains(file.Name, "/") || file.Size <= 0 {
					t.Errorf("%+v", file)
				}
				if got := p.rebase(r.Name, r.Revision, file.URL); got != file.URL && !strings.HasPrefix(got, "https://hub.test/") {
					t.Errorf("%s becomes %s", file.URL, got)
				}
			}
		}
	})
}
