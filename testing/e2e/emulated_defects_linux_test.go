//go:build e2e

package e2e

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// The tests of this file check that the emulated card notices a bundle that is not what ships.

// product is a product of matrices with hipBLAS, for the probe.
func product() []string { return []string{"product", "40", "7", "96"} }

// openedFiles calls run and returns the names of the files of a directory that were opened meanwhile, each once.
func openedFiles(t *testing.T, dir string, run func()) []string {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	run()
	var names []string
	for buffer := make([]byte, 1<<20); ; {
		n, err := syscall.Read(fd, buffer)
		if errors.Is(err, syscall.EAGAIN) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		for events := buffer[:n]; len(events) > 0; {
			end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
			mask := binary.NativeEndian.Uint32(events[4:])
			name := strings.TrimRight(string(events[syscall.SizeofInotifyEvent:end]), "\x00")
			switch {
			case mask&syscall.IN_Q_OVERFLOW != 0:
				t.Fatal("more files were opened than the kernel counts")
			case name != "" && !slices.Contains(names, name):
				names = append(names, name)
			}
			events = events[end:]
		}
	}
}

// TestEmulatedCardNoticesMissingTensileFile removes each file of Tensile that a product of matrices opens, one at a
// time: the list of the libraries, the description of one, and its code. Without it the product fails. rocBLAS opens a
// file with helpers as well, Kernels.so-000, which this product does not run.
func TestEmulatedCardNoticesMissingTensileFile(t *testing.T) {
	const target = "gfx1100"
	r := newRig(t, target)
	found, err := filepath.Glob(filepath.Join(r.Dir, "rocblas", "*", "library"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the files of rocBLAS are in %q: %v", found, err)
	}
	library := found[0]
	opened := openedFiles(t, library, func() { r.run(t, "product ok", product()...) })
	needed := 0
	for _, name := range opened {
		if !strings.HasPrefix(name, "TensileLibrary") {
			continue
		}
		path, away := filepath.Join(library, name), filepath.Join(t.TempDir(), name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			t.Fatalf("%s is no file: %v", name, err)
		}
		if err := os.Rename(path, away); err != nil {
			t.Fatal(err)
		}
		out, err := r.try(t, product()...)
		if err == nil || strings.Contains(out, "product ok") {
			t.Errorf("the product needs no %s: %v, %s", name, err, out)
		} else {
			needed++
			t.Logf("without %s: %v, %s", name, err, out)
		}
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
	}
	const fewest = 3
	if needed < fewest {
		t.Errorf("the product opens %q", opened)
	}
	r.run(t, "product ok", product()...)
}

// TestEmulatedCardNoticesFlippedInstruction flips one bit in each instruction of a kernel of libggml-hip that computes
// with floats, one at a time. The kernel then computes something else, or is stopped.
func TestEmulatedCardNoticesFlippedInstruction(t *testing.T) {
	for _, target := range []gfx.Target{"gfx1100", "gfx1101"} {
		t.Run(string(target), func(t *testing.T) {
			r := newRig(t, string(target))
			path, kernel := codeObject(t, r, target, kernelScale)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			code := survey.CodeObject{Target: target, Code: whole}
			flips := 0
			for _, i := range instructionsOf(t, code, kernel) {
				if !strings.Contains(i.Mnemonic(), "fma") && !strings.Contains(i.Mnemonic(), "mul_f32") {
					continue
				}
				flips++
				flipped := slices.Clone(whole)
				flipped[i.Offset] ^= 1 // another register, of a source or of the result
				if err := os.WriteFile(path, flipped, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := r.try(t, "scale", path, kernel)
				if err == nil || strings.Contains(out, "scale ok") {
					t.Errorf("%s at %#x is another instruction and nothing is wrong: %v, %s", i.Mnemonic(), i.Offset, err, out)
				}
			}
			if flips == 0 {
				t.Errorf("%s computes nothing", kernel)
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			r.run(t, "scale ok", "scale", path, kernel)
		})
	}
}

// instructionsOf returns the instructions of a kernel.
func instructionsOf(t *testing.T, code survey.CodeObject, name string) []survey.Instruction {
	t.Helper()
	kernels, err := code.Kernels()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(kernels, func(k survey.Kernel) bool { return k.Name == name })
	if at < 0 {
		t.Fatalf("the code object has no kernel %s", name)
	}
	instructions, err := code.Instructions(kernels[at])
	if err != nil {
		t.Fatal(err)
	}
	return instructions
}

// TestEmulatedCardRunsOnlyItsCode loads code for each target on the card of the other one. It needs the override that
// makes the ROCm runtime report the card as the code's target.
func TestEmulatedCardRunsOnlyItsCode(t *testing.T) {
	for code, card := range map[gfx.Target]string{"gfx1100": "gfx1101", "gfx1101": "gfx1100"} {
		t.Run(string(code)+" on "+card, func(t *testing.T) {
			r := newRig(t, card)
			path, kernel := codeObject(t, r, code, kernelScale)
			out, err := r.try(t, "scale", path, kernel)
			if err == nil || !strings.Contains(out, "hipModuleLoad: 209 no kernel image is available") {
				t.Errorf("without an override: %v, %s", err, out)
			}
			version := map[gfx.Target]string{"gfx1100": "11.0.0", "gfx1101": "11.0.1"}[code]
			t.Setenv("HSA_OVERRIDE_GFX_VERSION", version)
			r.run(t, "scale ok", "scale", path, kernel)
			// The override of the node, which has the number one, takes precedence.
			t.Setenv("HSA_OVERRIDE_GFX_VERSION_1", map[string]string{"gfx1100": "11.0.0", "gfx1101": "11.0.1"}[card])
			if out, err := r.try(t, "scale", path, kernel); err == nil {
				t.Errorf("with the override of the node: %s", out)
			}
		})
	}
}
