package recipe

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// coreResult is the result of a compile of the core with two libraries.
func coreResult(t *testing.T, output string) *stage.Result {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"libggml.so.0", "libggml-base.so.0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &stage.Result{Dir: dir, Output: output}
}

// inputFiles returns the names of the files in an input of a job.
func inputFiles(t *testing.T, in engine.Input) []string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(in.Write(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// TestCoreLinksUseTheCore compiles with the core's options and the stage's own in the core's
// toolchain, beside the core's libraries; a core with another output compiles it again. The keys of
// the core and of the other such stages have nothing of it.
func TestCoreLinksUseTheCore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		link    coreLink
		options []string
	}{
		{backendOps(), []string{"-DLLAMA_BUILD_TESTS=ON"}},
		{router(), []string{"-DLLAMA_SUBPROCESS=ON", "-DMTMD_VIDEO=OFF"}},
	} {
		t.Run(test.link.name, func(t *testing.T) {
			t.Parallel()
			var ran []engine.Job
			r, _, list, src := twoComponents(t, func(_ context.Context, job engine.Job) error {
				if job.Name == test.link.name {
					ran = append(ran, job)
				}
				return nil
			})
			lock, err := SourceLock()
			if err != nil {
				t.Fatal(err)
			}
			r.Lock = lock
			first := coreResult(t, "one")
			for _, core := range []*stage.Result{first, first, coreResult(t, "two")} {
				if _, err := r.coreLink(t.Context(), test.link, src, core); err != nil {
					t.Fatal(err)
				}
			}
			if len(ran) != 2 {
				t.Fatalf("compiled %d times, want once for each core", len(ran))
			}
			job := ran[0]
			tool, err := toolchain.Describe(t.Context(), r.Engine, r.Cache, r.toolchainSpec(list[0].Set), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			in, err := r.compileInputs(components(r.Lock, r.Targets)["core"], src, tool)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(test.options, func(o string) bool { return slices.Contains(in.Options, o) }) {
				t.Errorf("the core's options %q have those of %s", in.Options, test.link.name)
			}
			if got, want := job.Cmd[5:], slices.Concat(in.Options, test.options); !slices.Equal(got, want) || job.Image != tool.ID {
				t.Errorf("compiled in %s with %q, want %s and %q", job.Image, got, tool.ID, want)
			}
			if len(job.In) != 2 || job.In[1].Dir != "/core" || !slices.Equal(inputFiles(t, job.In[1]), []string{"libggml-base.so.0", "libggml.so.0"}) {
				t.Errorf("the inputs are %v", job.In)
			}
		})
	}
}

// TestCoreLinksAreInNoBundle checks that no variant has such a stage among its components, and that
// no component builds what it builds or has its options: bundles and packages contain nothing else.
func TestCoreLinksAreInNoBundle(t *testing.T) {
	t.Parallel()
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	all := components(lock, targets(t, "gfx1100"))
	for _, v := range Variants() {
		for _, name := range v.Components {
			c := all[name]
			for _, file := range slices.Concat(c.Build, c.Programs, c.Libraries, c.Modules, []string{compileStage(c)}) {
				if strings.Contains(file, "backend-ops") || strings.Contains(file, "router") {
					t.Errorf("%s of the variant %s builds %s", name, v.Name, file)
				}
			}
			arguments := c.arguments(nil, func(string) bool { return true })
			for _, l := range []coreLink{backendOps(), router()} {
				if slices.Contains(arguments, l.options[0]) {
					t.Errorf("%s of the variant %s is configured with %s", name, v.Name, l.options[0])
				}
			}
			if !slices.Contains(arguments, "-DLLAMA_SUBPROCESS=OFF") {
				t.Errorf("%s of the variant %s can start subprocesses", name, v.Name)
			}
		}
	}
}

// TestCoreLinkScriptsNameTheCoresLibraries checks that the scripts link with libraries that the
// core's compile returns, and that the router's compiles or links each one of llama-server.
func TestCoreLinkScriptsNameTheCoresLibraries(t *testing.T) {
	t.Parallel()
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	core := components(lock, nil)["core"].Libraries
	for _, name := range []string{"libggml", "libggml-base"} {
		if !slices.Contains(core, name+".so") || !strings.Contains(backendOpsScript, "/core/"+name+".so.0") {
			t.Errorf("%s does not link with the core's %s", backendOpsName, name)
		}
	}
	for _, library := range core {
		name := strings.TrimSuffix(library, ".so")
		linked := strings.Contains(routerScript, `\(`+name+`\|`) || strings.Contains(routerScript, `\|`+name+`\|`) || strings.Contains(routerScript, `\|`+name+`\)`)
		compiled := strings.Contains(routerScript, " "+name+" ") || strings.Contains(routerScript, " "+name+";")
		if other := name == "libllama-fit-params-impl"; linked == compiled && !other {
			t.Errorf("%s: linked with it %t, compiles it %t, want one of both", name, linked, compiled)
		}
	}
}
