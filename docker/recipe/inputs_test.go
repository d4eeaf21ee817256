package recipe

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// A build whose inputs differ from a manifest is rejected with the differences and the
// settings to change.
func TestCheckInputs(t *testing.T) {
	const ours = "use the checkout of that release"
	for _, tc := range []struct {
		name  string
		cmake []string // of this build; what is recorded had hip:GGML_HIP_GRAPHS=OFF
		other func(r *Recipe, m *bundle.Manifest)
		want  []string // parts of the error; nil: none
	}{
		{"the same", []string{"hip:GGML_HIP_GRAPHS=OFF"}, nil, nil},
		{"an option less", nil, nil, []string{"set GOROCM_CMAKE='hip:GGML_HIP_GRAPHS=OFF'", "\n  compile-hip had -DGGML_HIP_GRAPHS=OFF"}},
		{"an option more", []string{"hip:GGML_HIP_GRAPHS=OFF", "LLAMA_X=1"}, nil, []string{"set GOROCM_CMAKE='hip:GGML_HIP_GRAPHS=OFF'", "\n  compile-core has -DLLAMA_X=1\n  compile-hip has -DLLAMA_X=1\n  compile-vulkan has -DLLAMA_X=1"}},
		{"another value", []string{"hip:GGML_HIP_GRAPHS=ON"}, nil, []string{"had -DGGML_HIP_GRAPHS=OFF", "has -DGGML_HIP_GRAPHS=ON"}},
		{"none recorded", []string{"LLAMA_X=1"}, func(_ *Recipe, m *bundle.Manifest) {
			hip := &m.Stages[1]
			hip.Options = hip.Options[:len(hip.Options)-1]
		}, []string{"unset GOROCM_CMAKE", "compile-core has -DLLAMA_X=1"}},
		{"an option twice", []string{"hip:GGML_HIP_GRAPHS=OFF", "hip:GGML_HIP_GRAPHS=OFF"}, nil, []string{"order or number"}},
		{"an option of the checkout", []string{"hip:GGML_HIP_GRAPHS=OFF"}, func(_ *Recipe, m *bundle.Manifest) { m.Stages[0].Options[0] = "-DCMAKE_BUILD_TYPE=Debug" }, []string{ours, "compile-core had -DCMAKE_BUILD_TYPE=Debug"}},
		{"an environment of the checkout", []string{"hip:GGML_HIP_GRAPHS=OFF"}, func(_ *Recipe, m *bundle.Manifest) { m.Stages[1].Env[0] = "PATH=/opt" }, []string{ours, "compile-hip had PATH=/opt"}},
		{"another time", []string{"hip:GGML_HIP_GRAPHS=OFF"}, func(r *Recipe, _ *bundle.Manifest) { r.Lock.Epoch++ }, []string{ours, "SOURCE_DATE_EPOCH="}},
		{"other targets", []string{"hip:GGML_HIP_GRAPHS=OFF"}, func(r *Recipe, _ *bundle.Manifest) { r.Targets = r.Targets[:1] }, []string{"-DCMAKE_HIP_ARCHITECTURES=gfx1100;gfx1101"}},
		{"a compile that is not recorded", []string{"hip:GGML_HIP_GRAPHS=OFF"}, func(_ *Recipe, m *bundle.Manifest) { m.Stages = m.Stages[:1] }, []string{ours, "compile-hip is not recorded", "compile-vulkan is not recorded"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, image, compiled := bundled(t, toolchain.Spec{Kind: "debian", Suite: "forky"})
			v, err := VariantByName("hip")
			if err != nil {
				t.Fatal(err)
			}
			m := new(bundle.Manifest)
			if m.Stages, err = (&collector{recipe: r, variant: v, toolchain: image, compiled: compiled}).stages(); err != nil {
				t.Fatal(err)
			}
			r.CMake = tc.cmake
			if tc.other != nil {
				tc.other(r, m)
			}
			err = r.CheckInputs(t.Context(), v, m)
			if (err != nil) != (tc.want != nil) {
				t.Fatalf("got %v", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}

func TestCheckToolchain(t *testing.T) {
	specs := map[string]toolchain.Spec{
		"debian-forky": {Kind: "debian", Suite: "forky"}, "debian-image": {Kind: "debian", Suite: "forky", BaseImage: "somebody/rocm"},
		"amd": {Kind: "amd"}, "amd-image": {Kind: "amd", BaseImage: "somebody/rocm"},
	}
	remedies := map[string]string{
		"debian-forky": "set GOROCM_TOOLCHAIN=debian and GOROCM_SUITE=forky, and unset GOROCM_BASE_IMAGE", "debian-image": "set GOROCM_TOOLCHAIN=debian and GOROCM_BASE_IMAGE to",
		"amd": "set GOROCM_TOOLCHAIN=amd, and unset GOROCM_BASE_IMAGE", "amd-image": "set GOROCM_TOOLCHAIN=amd and GOROCM_BASE_IMAGE to",
	}
	for now, spec := range specs {
		for recorded, remedy := range remedies {
			err := (&Recipe{Toolchain: spec}).CheckToolchain(Variants()[0], &bundle.Manifest{Toolchain: bundle.Toolchain{Kind: recorded}})
			if (err == nil) != (now == recorded) || err != nil && !strings.Contains(err.Error(), remedy) {
				t.Errorf("recorded is %s, now it is %s: %v", recorded, now, err)
			}
		}
	}
}
