package ci

import (
	"archive/zip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModulesFindsNestedModules(t *testing.T) {
	p := writeModule(t, map[string]string{
		"a/a.go":              "package a\n",
		"nested/go.mod":       "module example.test/nested\n\ngo 1.26\n",
		"a/testdata/go.mod":   "not one of ours",
		".hidden/go.mod":      "not one of ours",
		"dist/goproxy/go.mod": "a product",
	})
	dirs, err := p.modules()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{p.Root, filepath.Join(p.Root, "nested")}, dirs); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

func TestChecksNameTheFile(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	p := writeModule(t, map[string]string{
		"a/a.go":             "package a\nfunc  A() {}\n",
		"b/b.go":             "package b\n\nimport \"fmt\"\n\n// B is wrong.\nfunc B() { fmt.Printf(\"%d\", \"x\") }\n",
		"c/c_darwin.go":      "package c\n\nvar x int = \"no\"\n",
		"c/c.go":             "package c\n",
		"d/d.go":             "package d\n\n// D is too large where a word has 32 bits.\nvar D int = 1 << 40\n",
		"pkg/e/e_windows.go": "package e\n\nvar x int = \"no\"\n",
		"pkg/e/e.go":         "package e\n",
		"nested/go.mod":      "module example.test/nested\n\ngo 1.26\n\nrequire example.test/unused v1.0.0\n",
	})
	if err := p.gofmt(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "a/a.go") {
		t.Errorf("gofmt: %v", err)
	}
	var out strings.Builder
	if err := p.vet("linux", "amd64")(t.Context(), &out); err == nil || !strings.Contains(out.String(), "b/b.go") {
		t.Errorf("vet: %v\n%s", err, &out)
	}
	out.Reset()
	if err := p.vet("darwin", "arm64")(t.Context(), &out); err == nil || !strings.Contains(out.String(), "c_darwin.go") {
		t.Errorf("vet darwin: %v\n%s", err, &out)
	}
	out.Reset()
	at := slices.IndexFunc(p.LintSteps(), func(s Step) bool { return s.Name == "vet linux/386" })
	if at < 0 {
		t.Fatal("no step compiles the packages with a word size of 32 bits")
	}
	if _, err := p.LintSteps()[at].Run(t.Context(), &out); err == nil || !strings.Contains(out.String(), "d/d.go") {
		t.Errorf("vet linux/386: %v\n%s", err, &out)
	}
	out.Reset()
	at = slices.IndexFunc(p.LintSteps(), func(s Step) bool { return s.Name == "vet windows/amd64" })
	if at < 0 {
		t.Fatal("no step compiles the packages for Windows")
	}
	if _, err := p.LintSteps()[at].Run(t.Context(), &out); err == nil || !strings.Contains(out.String(), "e_windows.go") {
		t.Errorf("vet windows/amd64: %v\n%s", err, &out)
	}
	if err := p.tidy(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "nested differ") {
		t.Errorf("tidy: %v", err)
	}
}

func TestLintOutsideAModuleFails(t *testing.T) {
	if err := Lint(t.Context(), io.Discard, Project{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "go.mod") {
		t.Errorf("got %v", err)
	}
}

// proxyWith returns a directory with one module in the layout of the module proxy
// protocol (go.dev/ref/mod#goproxy-protocol).
func proxyWith(t *testing.T, module, version string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, module, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mod := "module " + module + "\n\ngo 1.26\n"
	files["go.mod"] = mod
	for name, text := range map[string]string{"list": version + "\n", version + ".mod": mod, version + ".info": `{"Version":"` + version + `"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, text := range files {
		w, err := z.Create(module + "@" + version + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestToolIsInstalledOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	proxy := proxyWith(t, "example.test/tool", "v1.2.3", map[string]string{
		"cmd/probe/main.go": "package main\n\nfunc main() { println(\"probed\") }\n",
	})
	p := writeModule(t, map[string]string{"a/a.go": "package a\n"})
	t.Setenv("GOPROXY", "file://"+proxy)
	t.Setenv("GONOSUMDB", "example.test")
	t.Setenv("GOFLAGS", "-modcacherw")
	t.Setenv("GOMODCACHE", t.TempDir())
	const spec = "example.test/tool/cmd/probe@v1.2.3"

	var out strings.Builder
	installs := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var mine strings.Builder
			program, err := p.tool(t.Context(), &mine, spec)
			mu.Lock()
			defer mu.Unlock()
			installs += strings.Count(mine.String(), "installing probe v1.2.3")
			if err != nil {
				t.Errorf("%v\n%s", err, &mine)
				return
			}
			if err := p.command(&out, nil, program).run(t.Context()); err != nil || !strings.Contains(out.String(), "probed") {
				t.Errorf("running %s: %v\n%s", program, err, &out)
			}
		})
	}
	wg.Wait()
	if installs != 1 {
		t.Errorf("installed %d times", installs)
	}
	if _, err := p.tool(t.Context(), io.Discard, "example.test/tool/cmd/absent@v1.2.3"); err == nil || !strings.Contains(err.Error(), "absent@v1.2.3") {
		t.Errorf("an absent tool: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(p.Cache, "tools", "absent*.*")); err != nil || len(left) != 1 {
		t.Errorf("remains: %v, %v", left, err)
	}
}

// TestSuitesCoverNestedModules has one module with a failing test, one with a benchmark
// alone and one whose only file has a build tag; the latter two do not fail.
func TestSuitesCoverNestedModules(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	p := writeModule(t, map[string]string{
		"a/a_test.go":               "package a\n\nimport \"testing\"\n\nfunc TestA(*testing.T) {}\n",
		"runtime/extract/e_test.go": "package extract\n\nimport \"testing\"\n\nfunc TestE(*testing.T) {}\n",
		"e_test.go":                 "package m\n\nimport \"testing\"\n\nfunc TestM(*testing.T) {}\n",
		"adapter/go.mod":            "module example.test/adapter\n\ngo 1.26\n",
		"adapter/b_test.go":         "package b\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) { t.Error(\"nested\") }\n",
		"bench/go.mod":              "module example.test/bench\n\ngo 1.26\n",
		"bench/c_test.go":           "package c\n\nimport \"testing\"\n\nfunc BenchmarkC(*testing.B) {}\n",
		"targets/go.mod":            "module example.test/targets\n\ngo 1.26\n",
		"targets/d.go":              "//go:build mage\n\npackage main\n\nfunc Build() {}\n",
		// Each module is tested with its own versions.
		"go.work": "go 1.26\n\nuse ./bench\n",
	})
	for name, suite := range map[string]func(context.Context, io.Writer) (Count, error){"unit": p.unit, "race": p.race} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			count, err := suite(t.Context(), &out)
			if count != (Count{Passed: 3, Failed: 1}) || err == nil || !strings.Contains(err.Error(), "example.test/adapter TestB") || strings.Contains(err.Error(), "ran no test") {
				t.Errorf("count %v, error %v\n%s", count, err, &out)
			}
			if want := " ./runtime/extract . ./...\n"; !strings.Contains(out.String(), want) {
				t.Errorf("no command names the longest package first, as in %q:\n%s", want, &out)
			}
		})
	}
}
