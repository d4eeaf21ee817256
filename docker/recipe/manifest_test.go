package recipe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// bundled prepares the collection of the hip bundle: a recipe with a source that declares some of
// the options, and the results of its compiles.
func bundled(t *testing.T, spec toolchain.Spec) (*Recipe, *toolchain.Toolchain, map[string]*stage.Result) {
	t.Helper()
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &Recipe{Cache: cache, Lock: lock, Targets: targets(t, "gfx1101", "gfx1100"), CMake: []string{"hip:GGML_HIP_GRAPHS=OFF"}, Toolchain: spec}
	_, err = cache.Do(t.Context(), "source", map[string]string{"tree": lock.Tree}, func(_ context.Context, dir string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "CMakeLists.txt"), []byte("option(LLAMA_BUILD_UI \"a page\" ON)\n"), 0o600),
			os.Mkdir(filepath.Join(dir, "ggml"), 0o700),
			os.WriteFile(filepath.Join(dir, "ggml", "CMakeLists.txt"), []byte("option(GGML_HIP_GRAPHS \"graphs\" ON)\n"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, &toolchain.Toolchain{ID: "sha256:" + strings.Repeat("1", 64), Packages: []toolchain.Package{{Name: "gcc", Version: "1", Arch: "amd64"}}},
		map[string]*stage.Result{
			"core":   {Name: "compile-core", Key: "key of core", Output: "core"},
			"hip":    {Name: "compile-hip", Key: "key of hip", Output: "hip"},
			"vulkan": {Name: "compile-vulkan", Key: "key of vulkan", Output: "vulkan"},
		}
}

// The manifest lists the options and the environment of a compile, without options that the source
// does not declare.
func TestManifestHasTheCompilesInputs(t *testing.T) {
	r, tc, compiled := bundled(t, toolchain.Spec{Kind: "debian", Suite: "forky"})
	v, err := VariantByName("hip")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{recipe: r, variant: v, toolchain: tc, compiled: compiled}
	stages, err := c.stages()
	if err != nil || len(stages) != 3 {
		t.Fatalf("%v, %v", stages, err)
	}
	src, err := r.cachedSource()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range v.Components {
		in, err := r.compileInputs(components(r.Lock, r.Targets)[name], src, tc)
		if err != nil {
			t.Fatal(err)
		}
		s, res := stages[i], compiled[name]
		if s.Name != res.Name || s.Digest != res.Key || s.Output != res.Output {
			t.Errorf("%s: %+v", name, s)
		}
		if !slices.Equal(s.Options, in.Options) || !slices.Equal(s.Env, in.Env) {
			t.Errorf("%s: the manifest says %q in %q, the compile was given %q in %q", name, s.Options, s.Env, in.Options, in.Env)
		}
	}
	if hip := stages[1].Options; slices.Contains(hip, "-DGGML_HIP_ROCWMMA_FATTN=OFF") || !slices.Contains(hip, "-DLLAMA_BUILD_UI=OFF") {
		t.Errorf("options that the source does not declare, or not those that it does: %q", hip)
	}
	if vulkan := stages[2].Options; !slices.Contains(vulkan, "-DGGML_VULKAN=ON") || slices.Contains(vulkan, "-DGGML_HIP=ON") {
		t.Errorf("the Vulkan module is compiled with %q", vulkan)
	}
}

func TestToolchainRecord(t *testing.T) {
	for _, tc := range []struct {
		name       string
		spec       toolchain.Spec
		deviations []string
		kind       string
		locked     bool
	}{
		{"Debian's, as locked", toolchain.Spec{Kind: "debian", Suite: "forky"}, nil, "debian-forky", true},
		{"Debian's, not as locked", toolchain.Spec{Kind: "debian", Suite: "sid"}, []string{"gcc is 2"}, "debian-sid", false},
		{"the user's", toolchain.Spec{Kind: "debian", Suite: "forky", BaseImage: "somebody/rocm"}, nil, "debian-image", false},
		{"AMD's", toolchain.Spec{Kind: "amd"}, nil, "amd", false},
		{"the user's with AMD's layout", toolchain.Spec{Kind: "amd", BaseImage: "somebody/rocm"}, nil, "amd-image", false},
	} {
		r, image, compiled := bundled(t, tc.spec)
		image.Deviations = tc.deviations
		v, err := VariantByName("hip")
		if err != nil {
			t.Fatal(err)
		}
		in, err := r.collectInputs(v, []*toolchain.Toolchain{image}, compiled)
		if err != nil {
			t.Fatal(err)
		}
		c := &collector{recipe: r, variant: v, toolchain: image, packages: in.Packages, image: in.Image, deviations: in.Deviations}
		got := c.toolchainRecord()
		if got.Kind != tc.kind || got.Locked != tc.locked || !slices.Equal(got.Deviations, tc.deviations) || len(got.Packages) != 1 {
			t.Errorf("%s: %+v", tc.name, got)
		}
		if given := tc.spec.HasBaseImage(); given != (got.BaseDigest == image.ID) || !given && got.BaseDigest != "" {
			t.Errorf("%s: base digest %q", tc.name, got.BaseDigest)
		}
	}
}

// The contents of a manifest are part of the bundle's key, so that a bundle with other contents is
// not reused.
func TestBundleKey(t *testing.T) {
	type made struct {
		r        *Recipe
		v        Variant
		image    *toolchain.Toolchain
		compiled map[string]*stage.Result
	}
	key := func(change func(*made)) string {
		t.Helper()
		var m made
		m.r, m.image, m.compiled = bundled(t, toolchain.Spec{Kind: "debian", Suite: "forky"})
		var err error
		if m.v, err = VariantByName("hip"); err != nil {
			t.Fatal(err)
		}
		change(&m)
		in, err := m.r.collectInputs(m.v, []*toolchain.Toolchain{m.image}, m.compiled)
		if err != nil {
			t.Fatal(err)
		}
		k, err := stage.Key(in)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*made){
		"nothing":    func(*made) {},
		"deviations": func(m *made) { m.image.Deviations = []string{"gcc is 2"} },
		"packages":   func(m *made) { m.image.Packages[0].Version = "2" },
		"suite":      func(m *made) { m.r.Toolchain.Suite = "sid" },
		"image":      func(m *made) { m.r.Toolchain.BaseImage = "x" },
		"inputs":     func(m *made) { m.compiled["hip"].Key = "another" },
		"output":     func(m *made) { m.compiled["hip"].Output = "another" },
		"module":     func(m *made) { m.compiled["vulkan"].Output = "another" },
		"targets":    func(m *made) { m.r.Targets = m.r.Targets[:1] },
		"flavour":    func(m *made) { m.v.Flavour = "system" },
		"release":    func(m *made) { m.r.Lock.Tag = "v9" },
	} {
		k := key(change)
		if k != key(change) {
			t.Errorf("the key with another %s is not the same twice", name)
		}
		if other, ok := seen[k]; ok {
			t.Errorf("another %s gives the same key as another %s", name, other)
		}
		seen[k] = name
	}
}

// Both tables of decisions are keyed by their digests.
func TestBundleKeyHasTheTables(t *testing.T) {
	r, image, compiled := bundled(t, toolchain.Spec{Kind: "debian", Suite: "forky"})
	v, err := VariantByName("hip")
	if err != nil {
		t.Fatal(err)
	}
	for flavour, wantTable := range map[string]bool{"": false, "system": true} {
		v.Flavour = flavour
		in, err := r.collectInputs(v, []*toolchain.Toolchain{image}, compiled)
		if err != nil {
			t.Fatal(err)
		}
		for name, table := range map[string]struct{ file, got string }{
			"opened": {"../../pkg/elfdep/opened.txt", in.Opened}, "host": {"../../pkg/hostlib/libraries.txt", in.HostTable},
		} {
			want, err := stage.FileDigest(table.file)
			if err != nil {
				t.Fatal(err)
			}
			if name == "host" && !wantTable {
				want = ""
			}
			if table.got != want {
				t.Errorf("flavour %q: %s is keyed by %q, want %q", flavour, table.file, table.got, want)
			}
		}
	}
}
