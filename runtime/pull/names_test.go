package pull

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// A model file may state its licence; the wording of one is no name.
func TestLicenceOfAFile(t *testing.T) {
	for text, want := range map[string]string{"apache-2.0": "apache-2.0", "": "", "MIT License\n\nCopyright": "", strings.Repeat("a", maxLicense+1): ""} {
		b := ggufgen.New("llama")
		b.Text("general.license", text)
		b.Tensor("a", gguf.F32, func(w io.Writer, size uint64) error {
			_, err := w.Write(make([]byte, size))
			return err
		}, 8, 8)
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := b.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := license(path, info.Size()); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := license("none", 1); got != "" {
		t.Errorf("without a file: %q", got)
	}
}

// The name of a file that is pulled from an address stays in its directory, whatever
// the address says.
func TestNamesOfAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"https://h/a/m.gguf":                              "m.gguf",
		"https://h/a/m":                                   "m.gguf",
		"https://h/a/..":                                  "model.gguf",
		"https://h/a/%2e%2e":                              "model.gguf",
		"https://h/%2e%2e%2f%2e%2e%2fx":                   "x.gguf",
		"https://h/a%2f..%2fb.gguf":                       "b.gguf",
		"https://h/-rf.gguf":                              "model.gguf",
		"https://h/a%00b.gguf":                            "model.gguf",
		"https://h/a%5c..%5cb.gguf":                       "model.gguf",
		"https://h/" + strings.Repeat("a", 300) + ".gguf": "model.gguf",
		"https://h/":                                      "model.gguf",
		"https://h/?x":                                    "model.gguf",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := fileName(u.Path); got != want || !modelref.ValidFile(got) || strings.Contains(got, "/") {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
