//go:build e2e

package hermetic_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// withLavapipe returns the image of a release with Mesa's Vulkan drivers, and that of forky with
// Debian's llama-server, too.
func withLavapipe(t *testing.T, eng engine.Engine, suite string) string {
	t.Helper()
	packages := []string{"mesa-vulkan-drivers"}
	if suite == "forky" {
		packages = append(packages, "llama.cpp-tools")
	}
	return containertest.Debian(t, eng, suite, directory, packages...)
}

// TestServerOfDebian supervises the llama-server of Debian's package, which is another release. It
// needs no bundle.
func TestServerOfDebian(t *testing.T) {
	model, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	eng := containertest.Engine(t)
	const script = `
unset GOROCM_BUNDLE
/usr/bin/llama-server --version
"$@" --server /usr/bin/llama-server
"$@" --server llama-server --backend cpu`
	log, err := runIn(t, eng, withLavapipe(t, eng, "forky"), map[string]string{"go-rocm": product(t, "GOROCM_CLI"), "model.gguf": model},
		append([]string{"/bin/sh", "-eu", "-c", script, "sh", "/w/go-rocm"}, ask()...))
	if err != nil || strings.Count(log, "16 tokens") != 2 || !strings.Contains(log, "0.7.0") {
		t.Fatalf("%v\n%s", err, log)
	}
	if !strings.Contains(log, "nothing of it is verified") {
		t.Errorf("nothing says that the program is unverified:\n%s", log)
	}
}
