package recipe

import (
	"context"
	"debug/elf"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// madeUp is a backend as its author would write it: all that the build has to know of it.
var madeUp = Backend{
	Name: "madeup",
	Set:  toolchain.Set{Name: "madeup", Extra: "libmadeup-dev", Areas: "non-free"},
	Options: func([]gfx.Target) []Option {
		return []Option{{Name: "GGML_MADEUP", Value: "ON"}}
	},
	Opened: []elfdep.Decision{{Name: "libmadeup-driver.so.1", In: "libggml-madeup.so", Reason: "the host's driver"}},
	Limits: Limits{Packed: 1000, Package: 1500, Image: 2000},
}

func withMadeUp(t *testing.T) Variant {
	t.Helper()
	before := backends
	backends = append(slices.Clip(before), madeUp)
	t.Cleanup(func() { backends = before })
	v, err := VariantByName("madeup")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A new backend needs one entry of the table and no other code: the build derives its compile, its
// image, its closure, its limits and its keys from the entry.
func TestMadeUpBackendIsDataAlone(t *testing.T) {
	v := withMadeUp(t)
	if v.Label() != "madeup" || !slices.Equal(v.Components, []string{"core", "madeup"}) {
		t.Errorf("variant %+v", v)
	}
	if !slices.Contains(ComponentNames(), "madeup") || !slices.Contains(Sets([]Variant{v}), madeUp.Set) {
		t.Errorf("components %q, sets %v", ComponentNames(), Sets([]Variant{v}))
	}
	if _, err := v.WithFlavour("system"); err == nil {
		t.Error("it has a system flavour, and nothing of ROCm")
	}
	if err := CheckSize(nil, "madeup", Sizes{Packed: 1001}); err == nil || CheckSize(nil, "madeup", Sizes{Packed: 1000}) != nil {
		t.Errorf("its limit is not applied: %v", err)
	}
	if err := CheckImageSize("madeup", nil, 2001); err == nil {
		t.Error("the limit of its package is not applied")
	}

	r, image, compiled := bundled(t, toolchain.Spec{Kind: "debian", Suite: "forky"})
	src, err := r.cachedSource()
	if err != nil {
		t.Fatal(err)
	}
	in, err := r.compileInputs(components(r.Lock, r.Targets)["madeup"], src, image)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(in.Options, "-DGGML_MADEUP=ON") || !slices.Contains(in.Env, "MODULES=libggml-madeup.so") || !slices.Contains(in.Env, "BUILD=ggml-madeup") {
		t.Errorf("its compile: %q in %q", in.Options, in.Env)
	}
	compiled = map[string]*stage.Result{"core": compiled["core"], "madeup": {Name: "compile-madeup", Key: "key", Output: "output"}}
	key := func() string {
		t.Helper()
		in, err := r.collectInputs(v, []*toolchain.Toolchain{image}, compiled)
		if err != nil {
			t.Fatal(err)
		}
		k, err := stage.Key(in)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	before := key()
	backends[len(backends)-1].Opened = nil
	if key() == before {
		t.Error("its decisions are not part of its bundle's key")
	}
}

// otherCode matches a text that names a backend which only its own file and the table have to know. ggml-cuda is a directory
// of llama.cpp that the module of HIP is compiled from.
var otherCode = regexp.MustCompile(`(^|[^-\w])(cuda|sycl)($|[^-\w])`)

// TestNoOtherCodeNamesABackend reads the texts in the sources of the build: those that are not about one backend name none,
// so that a further one needs its file and its entry in the table alone.
func TestNoOtherCodeNamesABackend(t *testing.T) {
	t.Parallel()
	var files, found []string
	for _, dir := range []string{"docker", "packaging", "internal", "magefiles"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING && otherCode.MatchString(text.Value) {
				found = append(found, filepath.Base(path))
			}
			return true
		})
	}
	slices.Sort(found)
	if want := []string{"backend_cuda.go", "backend_sycl.go"}; !slices.Equal(slices.Compact(found), want) {
		t.Errorf("backends are named by %q, want %q", found, want)
	}
}

// The closure of a bundle honours the decisions of its backends, and of no others.
func TestBackendDecidesAboutOpenedLibraries(t *testing.T) {
	v := withMadeUp(t)
	module := hardened("libggml-madeup.so")
	module.Symbols = append(module.Symbols, elfgen.Symbol{Name: "dlopen", Undefined: true})
	module.Sections = append(module.Sections, elfgen.Section{Name: ".rodata", Flags: elf.SHF_ALLOC, Data: []byte("\x00libmadeup-driver.so.1\x00")})
	module.Needed = nil
	dir := directory(t, map[string]elfgen.Spec{"libggml-madeup.so": module})
	root := &rootfs{dir: t.TempDir()}
	roots := []string{filepath.Join(dir, "libggml-madeup.so")}
	opts := elfdep.Options{Root: root.dir, Stage: []string{dir}}
	libs, err := (&Recipe{}).complete(t.Context(), root, v, roots, opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(libs.excluded) != 1 || libs.excluded[0].Candidate.Name != "libmadeup-driver.so.1" || libs.excluded[0].Reason != "the host's driver" {
		t.Errorf("excluded are %+v", libs.excluded)
	}
	if _, err := (&Recipe{}).complete(t.Context(), root, Variants()[0], roots, opts); err == nil || !strings.Contains(err.Error(), "libmadeup-driver.so.1") {
		t.Errorf("without its decisions: %v", err)
	}
}

// Each entry of the table is complete, and two entries do not collide.
func TestBackendsAreComplete(t *testing.T) {
	names, sets := map[string]bool{"core": true, "cpu": true}, map[string]toolchain.Set{"cpu": toolchain.CPU}
	for _, b := range Backends() {
		if names[b.Name] || b.Options == nil || b.Devices == "" {
			t.Errorf("%q is there twice, or has no options, or does not say how its devices are found", b.Name)
		}
		names[b.Name] = true
		if other, ok := sets[b.Set.Name]; ok && other != b.Set {
			t.Errorf("two sets of tools have the name %s", b.Set)
		}
		sets[b.Set.Name] = b.Set
		for _, name := range b.With {
			if _, ok := backendByName(name); !ok || name == b.Name {
				t.Errorf("%s comes with %q", b.Name, name)
			}
		}
		locked, err := toolchain.Locked(b.Set)
		if err != nil || (len(locked) == 0) != (b.Untested != "") {
			t.Errorf("%s: %d locked packages, untested: %q, %v", b.Name, len(locked), b.Untested, err)
		}
	}
}

// The plans of backends that no machine here can compile.
func TestPlansOfUntestedBackends(t *testing.T) {
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	all := components(lock, targets(t, "gfx1100"))
	for name, want := range map[string][]string{
		"cuda": {"-DGGML_CUDA=ON", "-DGGML_CUDA_NO_VMM=ON", "-DGGML_CPU=OFF", "-DCMAKE_CUDA_ARCHITECTURES=75-real;86-real;89"},
		"sycl": {"-DGGML_SYCL=ON", "-DGGML_SYCL_TARGET=INTEL", "-DCMAKE_CXX_COMPILER=icpx", "-DGGML_CPU=OFF"},
	} {
		c := all[name]
		args := c.arguments(nil, func(string) bool { return true })
		for _, w := range want {
			if !slices.Contains(args, w) {
				t.Errorf("%s lacks %s", name, w)
			}
		}
		if !slices.Equal(c.Build, []string{"ggml-" + name}) || !slices.Equal(c.Modules, []string{"libggml-" + name + ".so"}) {
			t.Errorf("%s builds %q into %q", name, c.Build, c.Modules)
		}
	}
	if b, _ := backendByName("cuda"); !slices.Contains(b.Set.Packages(), "nvidia-cuda-toolkit") || !strings.Contains(b.Set.Areas, "non-free") {
		t.Errorf("cuda is compiled with %q of main and %q", b.Set.Packages(), b.Set.Areas)
	}
}

// A bundle may contain a second module, except where a base image may lack its tools.
func TestBundleWithASecondModule(t *testing.T) {
	before := backends
	backends = append(slices.Clip(before), madeUp)
	t.Cleanup(func() { backends = before })
	backends[len(before)].With = []string{"vulkan"}
	v, err := VariantByName("madeup")
	if err != nil {
		t.Fatal(err)
	}
	r := &Recipe{Toolchain: toolchain.Spec{Kind: "debian", Suite: "forky"}}
	if got := r.available(v).Components; !slices.Equal(got, []string{"core", "madeup", "vulkan"}) {
		t.Errorf("it consists of %q", got)
	}
	r.Toolchain.BaseImage = "somebody/image"
	if got := r.available(v).Components; !slices.Equal(got, []string{"core", "madeup"}) {
		t.Errorf("in a base image it consists of %q", got)
	}
	v, err = VariantByName("vulkan")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.available(v).Components; !slices.Equal(got, []string{"core", "vulkan"}) {
		t.Errorf("in a base image vulkan consists of %q", got)
	}
}

// directoryFiles is an image whose files are those of a directory; it has no links.
type directoryFiles struct {
	engine.Files
	dir    string
	closed *int
}

func (f directoryFiles) Stat(_ context.Context, p string) (engine.Entry, error) {
	info, err := os.Lstat(filepath.Join(f.dir, p))
	if errors.Is(err, os.ErrNotExist) {
		return engine.Entry{}, engine.ErrNotExist
	}
	if err != nil {
		return engine.Entry{}, err
	}
	return engine.Entry{Size: info.Size(), Dir: info.IsDir()}, nil
}

func (f directoryFiles) Close() error { *f.closed++; return nil }

// A library of the second image is used only if the first does not contain it.
func TestFirstImageHasPrecedence(t *testing.T) {
	first, second, closed := t.TempDir(), t.TempDir(), 0
	for name, content := range map[string]string{
		filepath.Join(first, "libc.so.6"): "first", filepath.Join(second, "libc.so.6"): "of the second", filepath.Join(second, "libvulkan.so.1"): "loader",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := imageFiles{directoryFiles{dir: first, closed: &closed}, directoryFiles{dir: second, closed: &closed}}
	for name, size := range map[string]int64{"/libc.so.6": int64(len("first")), "/libvulkan.so.1": int64(len("loader"))} {
		if e, err := files.Stat(t.Context(), name); err != nil || e.Size != size {
			t.Errorf("%s has %d bytes, want %d: %v", name, e.Size, size, err)
		}
	}
	if _, err := files.Stat(t.Context(), "/libgone.so.1"); !errors.Is(err, engine.ErrNotExist) {
		t.Errorf("a library of neither image: %v", err)
	}
	if err := files.Close(); err != nil || closed != 2 {
		t.Errorf("%d images closed, %v", closed, err)
	}
}
