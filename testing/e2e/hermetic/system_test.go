//go:build e2e

package hermetic_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

const (
	// missing is part of the error on a host without ROCm. noDevice is the HIP runtime's text
	// of hipErrorNoDevice (hipGetErrorString), which appears only if libggml-hip.so and all its
	// dependencies were loaded.
	missing  = "libamdhip64.so.6, needed by libggml-hip.so, is missing"
	noDevice = "no ROCm-capable device is detected"
)

// TestSystemBundle runs the bundle that uses the host's ROCm: on a host without ROCm, on one
// with Debian's in the standard directories, and on a Debian with an older C library and
// ROCm in a directory of its own.
func TestSystemBundle(t *testing.T) {
	packed, command := product(t, "GOROCM_SYSTEM_BUNDLE"), product(t, "GOROCM_CLI")
	model, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	eng := containertest.Engine(t)
	inputs := map[string]string{"go-rocm": command, "bundle.tar.zst": packed, "model.gguf": model}
	run := append([]string{"/w/go-rocm", "-v"}, ask()...)

	t.Run("without ROCm", func(t *testing.T) {
		ref := debian(t, eng, "bookworm")
		log, err := runIn(t, eng, ref, inputs, append([]string{"/w/go-rocm"}, ask()...))
		if err != nil || !strings.Contains(log, "16 tokens") {
			t.Fatalf("%v\n%s", err, log)
		}
		if strings.Count(log, missing) != 1 || !strings.Contains(log, "apt-get install libamdhip64-6 libhipblas2 librocblas4 (Debian, Ubuntu)") {
			t.Errorf("what is missing is not said once, with its packages:\n%s", log)
		}
		log, err = runIn(t, eng, ref, inputs, append(run, "--require-gpu"))
		if err == nil || !strings.Contains(log, missing) {
			t.Errorf("a GPU was required, got %v and:\n%s", err, log)
		}
		log, err = runIn(t, eng, ref, inputs, []string{"/w/go-rocm", "doctor"})
		if err != nil || !strings.Contains(log, missing) || !strings.Contains(log, "llama-server starts from") {
			t.Errorf("doctor: %v\n%s", err, log)
		}
	})
	t.Run("ROCm of Debian", func(t *testing.T) {
		ref := toolchainImage(t, eng, packed)
		log, err := runIn(t, eng, ref, inputs, run)
		if err != nil || !strings.Contains(log, "16 tokens") {
			t.Fatalf("%v\n%s", err, log)
		}
		if strings.Contains(log, missing) || !strings.Contains(log, noDevice) {
			t.Errorf("the host's ROCm was not loaded:\n%s", log)
		}
		log, err = runIn(t, eng, ref, inputs, []string{"/w/go-rocm", "doctor"})
		if err != nil || !strings.Contains(log, "the bundle's libraries are in the system's library directories") {
			t.Errorf("doctor: %v\n%s", err, log)
		}
	})
	t.Run("ROCm in a directory", func(t *testing.T) {
		inputs := map[string]string{
			"go-rocm": command, "bundle.tar.zst": packed, "model.gguf": model, "hermetic.tar.zst": product(t, "GOROCM_HIP_BUNDLE"),
		}
		// The hermetic bundle's ROCm and its dependencies, except for the C library, become the
		// ROCm installation of a host that has neither.
		const script = `
export GOROCM_BUNDLE=/w/hermetic.tar.zst
"$@" --gpu-layers 0 >/dev/null
dir=$(dirname "$(find /w/cache -name libamdhip64.so.6)")
mkdir -p /w/rocm/lib /w/rocm/.info && echo 6.4.3-1 >/w/rocm/.info/version
cd "$dir"
mv libamdhip64.so.* libhsa-runtime64.so.* libamd_comgr.so.* libhipblas.so.* librocblas.so.* libroctx64.so.* /w/rocm/lib
for f in rocblas libLLVMr.so.* libnuma.so.* libelf.so.* libdrm*.so.* libz*.so.* libedit.so.* libbsd.so.* libmd.so.* libxml2.so.* libffi.so.* libtinfo.so.*; do
	if [ -e "$f" ]; then mv "$f" /w/rocm/lib; fi
done
export GOROCM_BUNDLE=/w/bundle.tar.zst ROCM_PATH=/w/rocm
cd /
"$@"
/w/go-rocm doctor`
		log, err := runIn(t, eng, debian(t, eng, "bookworm"), inputs, append([]string{"/bin/sh", "-eu", "-c", script, "sh"}, run...))
		if err != nil || !strings.Contains(log, "16 tokens") {
			t.Fatalf("%v\n%s", err, log)
		}
		if strings.Contains(log, missing) || !strings.Contains(log, noDevice) || !strings.Contains(log, "ROCm 6.4.3 in /w/rocm has the bundle's libraries") {
			t.Errorf("the ROCm in ROCM_PATH was not loaded:\n%s", log)
		}
		// The hermetic bundle was unpacked for no GPU, so it has no kernels.
		if !strings.Contains(log, "the host's rocBLAS has no kernels for gfx1100, gfx1101") {
			t.Errorf("nothing is said of the kernels that lack:\n%s", log)
		}
	})
}

// toolchainImage returns the image in which the bundle was compiled, which has Debian's
// ROCm, with a directory for the user. The image's stage is in the same directory as the
// bundle's.
func toolchainImage(t *testing.T, eng engine.Engine, packed string) string {
	t.Helper()
	f, err := bundle.OpenFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	m := f.Manifest()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	kind, suite, _ := strings.Cut(m.Toolchain.Kind, "-")
	cache, err := stage.Open(filepath.Dir(filepath.Dir(filepath.Dir(packed))))
	if err != nil {
		t.Fatal(err)
	}
	spec := toolchain.Spec{Kind: kind, Set: toolchain.HIP, Suite: suite, Epoch: time.Unix(m.SourceDateEpoch, 0).UTC()}
	tc, err := toolchain.Describe(t.Context(), eng, cache, spec, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := toolchain.Ensure(t.Context(), eng, spec, tc, os.Stderr); err != nil {
		t.Fatal(err)
	}
	const ref = "go-rocm/test-root:rocm"
	err = eng.Run(t.Context(), engine.Job{
		Name: "directory", Image: tc.ID, CommitAs: ref, Dir: "/", Cmd: []string{"/usr/bin/install", "-d", "-o", "4321", "-g", "4321", "/w"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
