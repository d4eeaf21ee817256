//go:build linux && amd64

package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// Discover plans each model that it finds, and says why the others cannot be loaded.
func TestDiscoverPlansEachModel(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{})
	fakebundle.AddGPUModule(t)
	m := detect(t, sysRoot(t, "rx7800xt"))
	dir := t.TempDir()
	writeModel(t, filepath.Join(dir, "fits.gguf"), "smollm2-135m")
	writeModel(t, filepath.Join(dir, "partly.gguf"), "llama3-70b")
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	writeGGUF(t, filepath.Join(dir, "mmproj.gguf"), b, err)
	b, err = ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	writeGGUF(t, filepath.Join(dir, "lora.gguf"), b, err)
	for name, text := range map[string]string{"noise.gguf": "no model", "hf/config.json": "{}", "hf/model.safetensors": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]machine.FoundModel{}
	for f := range m.Discover(t.Context(), dir, plan.Options{}) {
		found[filepath.Base(f.Path)] = f
	}
	if f := found["fits.gguf"]; !f.Loadable || !f.Fits || f.Verdict != "fits" || f.Layers != f.TotalLayers || f.Needs == 0 || f.Context == 0 {
		t.Errorf("a model that fits: %+v", f)
	}
	if f := found["partly.gguf"]; !f.Loadable || f.Fits || f.Layers == 0 || f.Layers >= f.TotalLayers || !strings.Contains(f.Verdict, "layers on the GPU") {
		t.Errorf("a model that fits in part: %+v", f)
	}
	for name, why := range map[string]string{
		"mmproj.gguf": "use it with --mmproj", "lora.gguf": "use it with --adapter", "noise.gguf": "GGUF", "hf": "convert_hf_to_gguf.py",
	} {
		if f := found[name]; f.Loadable || f.Fits || !strings.Contains(f.Why, why) {
			t.Errorf("%s: %+v; want one that says %q", name, f, why)
		}
	}
	if len(found) != 6 {
		t.Errorf("found %d models, want 6", len(found))
	}
	m.HostMemory = 1 << 30
	for f := range m.Discover(t.Context(), dir, plan.Options{}) {
		if strings.HasSuffix(f.Path, "partly.gguf") && (!f.Loadable || f.Verdict != "too large for this machine") {
			t.Errorf("a model that is too large: %+v", f)
		}
	}
	n := 0
	for range m.Discover(t.Context(), dir, plan.Options{}) { // ends without walking on
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d models after a break", n)
	}
}
