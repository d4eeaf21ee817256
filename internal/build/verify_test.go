package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// errCompiles stops a build at its first compile.
var errCompiles = errors.New("it compiles")

// baseImageEngine is an engine with the image "base". It adds tools to the image and
// returns a new image each time, as engines do.
type baseImageEngine struct {
	engine.Engine
	gcc    string // version of the one package
	images int
}

func (g *baseImageEngine) Image(_ context.Context, ref string) (engine.Image, error) {
	switch {
	case ref == "base":
		return engine.Image{ID: "sha256:base"}, nil
	case g.images == 0:
		return engine.Image{}, engine.ErrNoImage
	}
	return engine.Image{ID: g.id()}, nil
}

func (g *baseImageEngine) id() string { return fmt.Sprintf("sha256:%064d", g.images) }

func (g *baseImageEngine) Run(_ context.Context, job engine.Job) error {
	if strings.HasPrefix(job.Name, "compile-") {
		return errCompiles
	}
	g.images++
	return nil
}

func (g *baseImageEngine) Files(context.Context, string) (engine.Files, error) {
	return installed(g.gcc), nil
}

// installed is an image in which one version of gcc is installed.
type installed string

func (installed) Stat(context.Context, string) (engine.Entry, error) { return engine.Entry{}, nil }
func (installed) Close() error                                       { return nil }

func (i installed) Walk(_ context.Context, _ string, fn func(*tar.Header, io.Reader) error) error {
	return fn(&tar.Header{Typeflag: tar.TypeReg}, strings.NewReader("Package: gcc\nVersion: "+string(i)+"\nArchitecture: amd64\n"))
}

// logs discards the logs of steps.
type logs struct{ io.Writer }

func (logs) Close() error                          { return nil }
func (l logs) Open(string) (io.WriteCloser, error) { return l, nil }

// source creates a repository with CMake files that declare options and returns its
// directory and tree hash.
func source(t *testing.T) (dir, tree string) {
	t.Helper()
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, "CMakeLists.txt"), "option(LLAMA_BUILD_UI \"a page\" ON)\n")
	writeFile(t, filepath.Join(dir, "ggml", "CMakeLists.txt"), "option(GGML_CPU \"cpu\" ON)\n")
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet")
	git("add", "--all")
	git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "release")
	return dir, git("rev-parse", "HEAD^{tree}")
}

// A build that cannot match the manifest does not compile, and its error says how to
// change the settings.
func TestVerifyComparesBeforeItCompiles(t *testing.T) {
	from, tree := source(t)
	g := &baseImageEngine{gcc: "1"}
	verify := func(m bundle.Manifest, cmake ...string) error {
		var log bytes.Buffer
		s := &Session{Settings: &settings.Settings{Cache: t.TempDir(), BaseImage: "base"}, Out: &log}
		s.Recipe = &recipe.Recipe{
			Engine: g, Lock: recipe.Lock{Tag: "v1", Tree: tree, Epoch: 1}, Source: from, CMake: cmake, Jobs: 1, Log: &log, Progress: logs{io.Discard},
			Toolchain: toolchain.Spec{Kind: "debian", BaseImage: "base"},
		}
		err := s.verify(t.Context(), &m)
		if left, globErr := filepath.Glob(filepath.Join(s.Settings.Cache, "verify-*")); globErr != nil || len(left) > 0 {
			t.Errorf("left behind %v, %v", left, globErr)
		}
		return err
	}
	m := bundle.Manifest{
		Variant: "cpu", Flavour: bundle.FlavourHermetic, Source: bundle.Source{Tree: tree},
		Toolchain: bundle.Toolchain{Kind: "debian-image", BaseDigest: "sha256:first", Packages: []bundle.Package{{Name: "gcc", Version: "1", Arch: "amd64"}}},
		Stages:    []bundle.Stage{{Name: "compile-core"}},
	}
	// The manifest records nothing: the error lists every input of the compile.
	err := verify(m)
	for line := range strings.Lines(fmt.Sprint(err)) {
		switch input, ok := strings.CutPrefix(strings.TrimSuffix(strings.TrimPrefix(line, "  "), "\n"), "compile-core has "); {
		case ok && strings.HasPrefix(input, "-D"):
			m.Stages[0].Options = append(m.Stages[0].Options, input)
		case ok:
			m.Stages[0].Env = append(m.Stages[0].Env, input)
		}
	}
	if len(m.Stages[0].Options) == 0 || len(m.Stages[0].Env) == 0 {
		t.Fatalf("got %v", err)
	}
	further := slices.Clone(m.Stages)
	further[0].Options = append(slices.Clone(m.Stages[0].Options), "-DLLAMA_X=1")
	for _, tc := range []struct {
		name   string
		cmake  []string
		change func(m *bundle.Manifest)
		want   string
	}{
		{"another variant", nil, func(m *bundle.Manifest) { m.Variant = "none" }, `no variant "none"`},
		{"an unknown flavour", nil, func(m *bundle.Manifest) { m.Flavour = bundle.FlavourSystem }, "no system flavour"},
		{"another source", nil, func(m *bundle.Manifest) { m.Source.Tree = strings.Repeat("0", 40) }, "use the checkout of that release"},
		{"another toolchain", nil, func(m *bundle.Manifest) { m.Toolchain.Kind = "debian-forky" }, "GOROCM_SUITE=forky"},
		{"another option", []string{"LLAMA_X=1"}, func(*bundle.Manifest) {}, "unset GOROCM_CMAKE"},
		{"a recorded option", nil, func(m *bundle.Manifest) { m.Stages = further }, "set GOROCM_CMAKE='core:LLAMA_X=1'"},
		{"the recorded option", []string{"core:LLAMA_X=1"}, func(m *bundle.Manifest) { m.Stages = further }, "compiled in the image sha256:first"},
		{"another environment", nil, func(m *bundle.Manifest) {
			m.Stages = []bundle.Stage{{Name: "compile-core", Options: m.Stages[0].Options}}
		}, "has SOURCE_DATE_EPOCH=1"},
		{"other packages", nil, func(m *bundle.Manifest) {
			m.Toolchain.Packages = []bundle.Package{{Name: "gcc", Version: "2", Arch: "amd64"}}
		}, "gcc is 1, locked is 2"},
		{"another image", nil, func(*bundle.Manifest) {}, "compiled in the image sha256:first"},
		{"all as recorded", nil, func(m *bundle.Manifest) { g.images = 6; m.Toolchain.BaseDigest = fmt.Sprintf("sha256:%064d", 7) }, errCompiles.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changed := m
			tc.change(&changed)
			if err := verify(changed, tc.cmake...); err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, errCompiles) != (tc.want == errCompiles.Error()) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A bundle that was compiled in a base image is verified in the image of the first
// build, which its cache records.
func TestVerifyReusesTheImageOfTheFirstBuild(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(from, "toolchain-cpu-1", "stage.json"), "{}")
	writeFile(t, filepath.Join(from, "toolchain-cpu-1", "out", "packages.lock"), "image sha256:first")
	writeFile(t, filepath.Join(from, "toolchain-hip-2.part", "stage.json"), "interrupted")
	writeFile(t, filepath.Join(from, "compile-core-3", "stage.json"), "{}")
	if err := reuseImages(from, to); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "toolchain-cpu-1", "out", "packages.lock")); err != nil || string(b) != "image sha256:first" {
		t.Errorf("%q, %v", b, err)
	}
}

// A bundle that differs from the manifest is kept, and the error lists all
// differences. Otherwise nothing is left.
func TestVerifyKeepsADifferentBundle(t *testing.T) {
	right := func(t *testing.T, dir string) *bundle.Manifest {
		t.Helper()
		for i := range 6 {
			writeFile(t, filepath.Join(dir, fmt.Sprintf("lib%d.so", i)), "x")
		}
		writeFile(t, filepath.Join(dir, "llama-server"), "server")
		for _, e := range []string{"llama-server", "lib0.so", "lib1.so", "lib2.so", "lib3.so", "lib4.so", "lib5.so"} {
			if err := os.Chmod(filepath.Join(dir, e), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		m, err := bundle.Build(dir, bundle.Manifest{Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v1", Entry: bundle.Entry{Program: "llama-server"}})
		if err == nil {
			err = bundle.WriteManifest(dir, m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := right(t, t.TempDir())
	for _, tc := range []struct {
		name string
		then func(dir string) error
		want []string // parts of the error; nil: none
		kept bool
	}{
		{"the same", func(string) error { return nil }, nil, false},
		{"others", func(dir string) error {
			for i := range 6 {
				writeFile(t, filepath.Join(dir, fmt.Sprintf("lib%d.so", i)), "y")
			}
			return nil
		}, []string{"\n  lib0.so: sha256", "\n  lib5.so: sha256", "\n  lib4.so: ", "mage prune"}, true},
		{"not built", func(string) error { return errCompiles }, []string{"it compiles"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var said bytes.Buffer
			s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}, Out: &said}
			err := s.rebuild(t.Context(), m, func(_ context.Context, dir string) (string, error) {
				built := filepath.Join(dir, "bundle-cpu-1", "out")
				if err := os.MkdirAll(built, 0o755); err != nil {
					return "", err
				}
				right(t, built)
				return built, tc.then(built)
			})
			left, globErr := filepath.Glob(filepath.Join(s.Settings.Cache, "verify-*")) // the pattern of prune
			if globErr != nil || (len(left) == 1) != tc.kept {
				t.Fatalf("left behind %v, %v", left, globErr)
			}
			if (err == nil) != (tc.want == nil) || (err == nil) != strings.Contains(said.String(), "bit for bit") {
				t.Fatalf("got %v, said %q", err, said.String())
			}
			for _, want := range append(tc.want, left...) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
			if tc.kept && !exists(filepath.Join(left[0], "stages", "bundle-cpu-1", "out", "llama-server")) {
				t.Errorf("the bundle is not in %s", left[0])
			}
		})
	}
}
