//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// hipBundle returns the path of the hip bundle, and sets it as the bundle for this process
// and for the programs that the test starts.
func hipBundle(t *testing.T) string {
	t.Helper()
	path := os.Getenv(envHIPBundle)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s has to name the packed hip bundle: %v; `mage test` builds it and sets the variable", envHIPBundle, err)
	}
	t.Setenv(envBundle, path)
	return path
}

// TestHIPBundleListsNoDevice unpacks the hip bundle for all targets and starts its server
// directly, on a machine without a GPU.
func TestHIPBundleListsNoDevice(t *testing.T) {
	if _, err := os.Stat("/dev/kfd"); err == nil {
		t.Fatal("this machine has an AMD GPU (/dev/kfd): run this test where there is none, or hide it")
	}
	in := unpackedHIP(t)
	if len(in.Targets) == 0 {
		t.Error("the hip bundle names no GPU target")
	}
	argv := append(in.Command(), "--list-devices")
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = in.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "(none)") {
		t.Errorf("expected no device:\n%s", out)
	}
}

// TestHIPBundleDefinesEverySymbol resolves every symbol that the files of the bundle
// import, by the loader's rules for versions, and checks that the trimmed libLLVM
// needs no library of the whole one.
func TestHIPBundleDefinesEverySymbol(t *testing.T) {
	packed, err := bundle.OpenFile(hipBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := packed.Close(); err != nil {
			t.Error(err)
		}
	}()
	in, err := extract.Extract(t.Context(), packed.Reader, extract.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var libs []elfdep.Lib
	files := map[string]bool{}
	for _, f := range in.Manifest.Files {
		files[f.Path] = true
		if f.Path == in.Manifest.Entry.Program || (!strings.Contains(f.Path, "/") && strings.Contains(f.Path, ".so")) {
			libs = append(libs, elfdep.Lib{SONAME: f.Path, Path: filepath.Join(in.Dir, f.Path)})
		}
	}
	undefined, err := elfdep.Unresolved(libs)
	if err != nil {
		t.Fatal(err)
	}
	if len(undefined) > 0 {
		t.Error(&elfdep.UnresolvedError{Symbols: undefined})
	}
	made := slices.ContainsFunc(in.Manifest.Stages, func(s bundle.Stage) bool {
		return s.Name == "llvm" && slices.Contains(s.Options, "targets=AMDGPU;X86")
	})
	if !made || !files["libLLVMr.so.21"] || files["libLLVM.so.21.1"] || files["libz3.so.4"] || files["libffi.so.8"] {
		t.Errorf("libLLVM is not the one that was linked for the bundle: %v", in.Manifest.Stages)
	}
}

// TestHIPBundleAnswersOnTheCPU inspects the running child: the HIP module and its
// runtime are mapped, HIP has found no device, and the answer is correct.
func TestHIPBundleAnswersOnTheCPU(t *testing.T) {
	hipBundle(t)
	path := realModel(t, models.SmolLM2())
	model := load(t, path)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", model.Server().Child.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range []string{"libggml-hip.so", "libamdhip64.so", "libggml-cpu-"} {
		if !strings.Contains(string(maps), library) {
			t.Errorf("the running server has not loaded %s", library)
		}
	}
	// The text of hipErrorNoDevice, from hipGetErrorString.
	if log := strings.Join(model.Server().Child.LogTail(), "\n"); !strings.Contains(log, "no ROCm-capable device is detected") {
		t.Errorf("HIP did not report that there is no device:\n%s", log)
	}
	if text := chat(t, model); !strings.Contains(text, answer) {
		t.Errorf("answered %q", text)
	}
	if got := ask(t, "-max", "16", path, question); !strings.Contains(got.Text, answer) {
		t.Errorf("a program of its own answered %q", got.Text)
	}
}
