//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// secondCard is how a person names the second card of the machine two-cards: by its unique id.
const secondCard = "GPU-398a3f843a146602"

// emulatedBuild builds the library and the probe once for each run.
var emulatedBuild = sync.OnceValues(func() (out struct{ library, probe string }, err error) {
	dir := filepath.Join(os.Getenv(envWork), "hsa")
	if err = os.Mkdir(dir, 0o700); err != nil {
		return out, err
	}
	if out.library, err = hsa.Build(context.Background(), dir); err != nil {
		return out, err
	}
	out.probe, err = hsa.Probe(context.Background(), dir)
	return out, err
})

// A rig is a copy of the hip bundle with an emulated card.
type rig struct {
	*extract.Installed
	probe string
	cards string
}

// newRig returns a copy of the hip bundle in which the ROCm runtime is the emulated card's.
func newRig(t *testing.T, cards string) *rig {
	t.Helper()
	build, err := emulatedBuild()
	if err != nil {
		t.Fatal(err)
	}
	in := *unpackedHIP(t)
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := hsa.Replace(in.Dir, build.library, dir); err != nil {
		t.Fatal(err)
	}
	in.Dir = dir
	return &rig{&in, build.probe, cards}
}

// alone replaces a file of the rig, which may be a link to the bundle's, by a copy that a test may change, and returns
// its path.
func (r *rig) alone(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(r.Dir, name)
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", path, path+".copy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(path+".copy", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// command returns a program with the loader and the libraries of the rig; "" is the bundle's own.
func (r *rig) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	argv := r.Command()
	if program != "" {
		argv[len(argv)-1] = program
	}
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), hsa.EnvCards+"="+r.cards)
	return cmd
}

// try runs the probe and returns what it prints.
func (r *rig) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := r.command(t.Context(), r.probe, args...).CombinedOutput()
	return string(out), err
}

// run runs the probe, which has to print a text.
func (r *rig) run(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := r.try(t, args...)
	if err != nil || !strings.Contains(out, want) {
		t.Errorf("probe %q: %v, %s", args, err, out)
	}
	if strings.Contains(out, "not implemented") {
		t.Errorf("probe %q calls a function that is not implemented: %s", args, out)
	}
}

// TestEmulatedCardHasEveryFunction checks that the emulated card's library has each HSA function, in its version, that
// a library of the bundle imports.
func TestEmulatedCardHasEveryFunction(t *testing.T) {
	r := newRig(t, "gfx1100")
	libraries, err := filepath.Glob(filepath.Join(r.Dir, "*.so*"))
	if err != nil {
		t.Fatal(err)
	}
	imports := 0
	for _, path := range libraries {
		if filepath.Base(path) == hsa.Library {
			continue
		}
		wanted, err := hsaImports(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(wanted) == 0 {
			continue
		}
		imports += len(wanted)
		symbols, err := elfdep.ImportsFrom(path, filepath.Join(r.Dir, hsa.Library))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range wanted {
			if !slices.ContainsFunc(symbols, func(s elfdep.Symbol) bool { return s.Name == name && s.Version == "ROCR_1" }) {
				t.Errorf("%s imports %s, which is missing", filepath.Base(path), name)
			}
		}
	}
	if imports < 80 {
		t.Errorf("the libraries import only %d functions", imports)
	}
}

// hsaImports returns the HSA functions that a library imports.
func hsaImports(path string) (names []string, err error) {
	err = elfdep.WithFile(path, func(f *elf.File, _ *os.File) error {
		symbols, err := f.ImportedSymbols()
		for _, s := range symbols {
			if strings.HasPrefix(s.Name, "hsa_") {
				names = append(names, s.Name)
			}
		}
		return err
	})
	return names, err
}

// TestHIPRuntimeOnEmulatedCard calls the shipped HIP runtime, hipBLAS and rocBLAS on both cards: properties, copies,
// fills, streams, events, exhausted memory, a product of matrices, a kernel of libggml-hip, and a memory fault.
func TestHIPRuntimeOnEmulatedCard(t *testing.T) {
	for target, name := range map[gfx.Target]string{"gfx1100": "AMD Radeon RX 7900 XTX, 25753026560 bytes", "gfx1101": "AMD Radeon RX 7800 XT, 17163091968 bytes"} {
		t.Run(string(target), func(t *testing.T) {
			r := newRig(t, string(target))
			r.run(t, "device 0: "+name, "devices")
			r.run(t, "memory ok", "memory")
			r.run(t, "exhaust ok", "exhaust")
			r.run(t, "product ok", "product", "40", "7", "96")
			code, kernel := codeObject(t, r, target, kernelScale)
			r.run(t, "scale ok", "scale", code, kernel)
			out, err := r.try(t, "wild", code, kernel)
			if err == nil || !strings.Contains(out, "Memory access fault by GPU node-1") || !strings.Contains(out, kernel) {
				t.Errorf("a pointer to nowhere: %v, %s", err, out)
			}
		})
	}
	r := newRig(t, "gfx1100,gfx1101")
	r.run(t, "device 1: AMD Radeon RX 7800 XT", "devices")
	r.run(t, "memory ok", "memory")
}

// codeObject writes the code object of libggml-hip that has a kernel to a file, and returns it and the kernel's whole
// name.
func codeObject(t *testing.T, r *rig, target gfx.Target, prefix string) (path, kernel string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "code.hsaco")
	err := survey.Walk([]string{filepath.Join(r.Dir, "libggml-hip.so")}, func(c survey.CodeObject) error {
		if c.Target != target || kernel != "" || !bytes.Contains(c.Code, []byte(prefix)) {
			return nil
		}
		f, err := elf.NewFile(bytes.NewReader(c.Code))
		if err != nil {
			return err
		}
		symbols, err := f.DynamicSymbols()
		if err != nil {
			return err
		}
		for _, s := range symbols {
			if strings.HasPrefix(s.Name, prefix) && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
				kernel = s.Name
				return os.WriteFile(path, c.Code, 0o600)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if kernel == "" {
		t.Fatalf("libggml-hip has no kernel %s", prefix)
	}
	return path, kernel
}

// TestBundlesHaveNoEmulatedCard checks that nothing of the emulated card is in a bundle or in the command.
func TestBundlesHaveNoEmulatedCard(t *testing.T) {
	build, err := emulatedBuild()
	if err != nil {
		t.Fatal(err)
	}
	mark := []byte(hsa.EnvCards)
	has := func(path string) bool {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(b, mark)
	}
	if !has(build.library) {
		t.Errorf("the emulated card's library does not have %s", mark)
	}
	in := unpackedHIP(t)
	paths := []string{cli(t)}
	for _, f := range in.Manifest.Files {
		paths = append(paths, filepath.Join(in.Dir, f.Path))
	}
	for _, path := range paths {
		if has(path) {
			t.Errorf("%s has the emulated card", path)
		}
	}
}
