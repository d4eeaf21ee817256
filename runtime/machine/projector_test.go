//go:build linux && amd64

package machine_test

import (
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

func TestFindProjector(t *testing.T) {
	for name, c := range map[string]struct {
		files string // "m:" a model that is 64 wide, "p:" a projector for it, "w:" one for a wider model, "n:" no GGUF file
		model string
		want  string
	}{
		"none":                            {"m:a.gguf", "a.gguf", ""},
		"any name beside the only model":  {"m:a-Q4_K_M.gguf p:mmproj-model-f16.gguf", "a-Q4_K_M.gguf", "mmproj-model-f16.gguf"},
		"the directory's model":           {"m:a.gguf p:mmproj.gguf", ".", "mmproj.gguf"},
		"quantisations of one model":      {"m:a-b-Q4_K_M.gguf m:a-b-UD-IQ2_XXS.gguf p:mmproj-F16.gguf", "a-b-Q4_K_M.gguf", "mmproj-F16.gguf"},
		"any name beside several":         {"m:a.gguf m:b.gguf p:mmproj-f16.gguf", "a.gguf", ""},
		"named like the model":            {"m:a-Q8_0.gguf m:b.gguf p:mmproj-a-F16.gguf p:b-mmproj.gguf", "a-Q8_0.gguf", "mmproj-a-F16.gguf"},
		"named like another model":        {"m:a.gguf m:ab.gguf p:mmproj-ab.gguf", "a.gguf", ""},
		"like the model before any name":  {"m:a.gguf p:mmproj-F16.gguf p:mmproj-a-F32.gguf", "a.gguf", "mmproj-a-F32.gguf"},
		"16 bits before others":           {"m:a.gguf p:mmproj-F32.gguf p:mmproj-Q8_0.gguf p:mmproj-F16.gguf", "a.gguf", "mmproj-F16.gguf"},
		"for a wider model":               {"m:a.gguf w:mmproj-a.gguf", "a.gguf", ""},
		"for a wider model beside a good": {"m:a.gguf w:mmproj-F16.gguf p:mmproj-F32.gguf", "a.gguf", "mmproj-F32.gguf"},
		"no projector":                    {"m:a.gguf m:mmproj-a.gguf n:mmproj-b.gguf", "a.gguf", ""},
		"no model":                        {"p:mmproj.gguf", "a.gguf", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range strings.Fields(c.files) {
				kind, base, _ := strings.Cut(file, ":")
				path := filepath.Join(dir, base)
				switch kind {
				case "m":
					b := ggufgen.New("llama")
					b.Uint("llama.embedding_length", 64)
					b.Tensor("a", gguf.F32, zeros, 8)
					writeGGUF(t, path, b, nil)
				case "p", "w":
					o := ggufgen.ProjectorOptions{}
					if kind == "w" {
						o.Output = 128
					}
					b, err := ggufgen.Projector(o)
					writeGGUF(t, path, b, err)
				default:
					writeKind(t, "", path)
				}
			}
			got := machine.FindProjector(filepath.Join(dir, c.model))
			if got != "" {
				got = filepath.Base(got)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
