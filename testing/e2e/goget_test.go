//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/packaging/modtest"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// proxied publishes this module, with the cpu bundle inside, as the only version in a
// directory that the go command uses as a proxy.
func proxied(t *testing.T) (proxy string) {
	t.Helper()
	files := modtest.Files(t)
	packed, err := os.Open(os.Getenv(envBundle))
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	parts, err := payload.WriteParts(work, "cpu", packed, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		files = append(files, goproxy.File{Name: "embed/payload/" + part, From: filepath.Join(work, part)})
	}
	v := goproxy.Version{Path: modtest.Path, Version: "v0.1.0", Time: time.Unix(1700000000, 0)}
	if err := goproxy.Pack(t.Context(), work, v, files); err != nil {
		t.Fatal(err)
	}
	proxy = filepath.Join(t.TempDir(), "proxy")
	if err := goproxy.Add(t.Context(), proxy, v, work); err != nil {
		t.Fatal(err)
	}
	return proxy
}

// without returns the environment without the named variables.
func without(names ...string) []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(names, name)
	})
}

// TestGoGetAnswers builds a program outside this source tree that downloads the module with
// `go get` from a directory. A model answers with the bundle in the module, and the answer
// is the same as in the source tree.
func TestGoGetAnswers(t *testing.T) {
	proxy, dir, cache := proxied(t), t.TempDir(), t.TempDir()
	source, err := os.ReadFile("ask/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"go.mod": "module example.test/program\n\ngo 1.26\n", "main.go": string(source)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	others, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"get", modtest.Path + "@latest"}, {"build", "-trimpath", "-o", "program", "."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// The other modules come from this machine's module cache, served as a proxy.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -modcacherw", "GOWORK=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0",
			"GOMODCACHE="+filepath.Join(dir, "modcache"), "GONOSUMDB=*", "GOPRIVATE=", "GONOPROXY=",
			"GOPROXY=file://"+proxy+",file://"+filepath.Join(strings.TrimSpace(string(others)), "cache", "download"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	question := []string{"-raw", "-max", "12", tiny(t, "llama-spm", 5), "The quick brown fox"}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "program"), question...)
	cmd.Dir, cmd.Env = dir, append(without(envBundle, envCache), envCache+"="+cache)
	got, want := runAsk(t, cmd), ask(t, question...)
	if got.Text != want.Text || got.Yielded == 0 || got.Yielded != want.Yielded || got.Info != want.Info {
		t.Errorf("the program said %d tokens %q, here there are %d %q", got.Yielded, got.Text, want.Yielded, want.Text)
	}

	packed, err := bundle.OpenFile(os.Getenv(envBundle))
	if err != nil {
		t.Fatal(err)
	}
	digest := packed.Manifest().Digest()
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "bundles", digest, bundle.ManifestName)); err != nil {
		t.Errorf("the bundle inside the program was not the one that answered: %v", err)
	}
}
