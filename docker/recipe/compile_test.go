package recipe

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

const unusedWarning = `-- Configuring done (8.2s)
-- Generating done (0.1s)
CMake Warning:
  Manually-specified variables were not used by the project:

    GGML_HIPP
    NO_SUCH_OPTION


-- Build files have been written to: /build/tree
`

func TestUnusedOptions(t *testing.T) {
	for _, tc := range []struct {
		log  string
		want []string
	}{
		{unusedWarning, []string{"GGML_HIPP", "NO_SUCH_OPTION"}},
		{"-- Build files have been written to: /build/tree\n", nil},
		{"  Manually-specified variables were not used by the project:\n\n    ONE", []string{"ONE"}},
		{"  Manually-specified variables were not used by the project:\n", nil},
	} {
		if got := UnusedOptions(tc.log); !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.log, got, tc.want)
		}
	}
}

func targets(t *testing.T, names ...string) []gfx.Target {
	t.Helper()
	var ts []gfx.Target
	for _, n := range names {
		target, err := gfx.Parse(n)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, target)
	}
	return ts
}

func TestArguments(t *testing.T) {
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	all := components(lock, targets(t, "gfx1101", "gfx1100"))
	everything := func(string) bool { return true }
	nothing := func(string) bool { return false }

	hip := all["hip"].arguments([]string{"GGML_CUDA_FA=OFF", "core:GGML_LTO=ON", "hip:GGML_HIP_GRAPHS=OFF"}, nothing)
	for _, want := range []string{"-DCMAKE_HIP_ARCHITECTURES=gfx1100;gfx1101", "-DGGML_HIP=ON", "-DGGML_CUDA_FA=OFF", "-DGGML_HIP_GRAPHS=OFF"} {
		if !slices.Contains(hip, want) {
			t.Errorf("hip lacks %s", want)
		}
	}
	for _, not := range []string{"-DGGML_LTO=ON", "-DGGML_HIP_ROCWMMA_FATTN=OFF"} {
		if slices.Contains(hip, not) {
			t.Errorf("hip has %s", not)
		}
	}
	core := all["core"].arguments(nil, everything)
	if slices.ContainsFunc(core, func(a string) bool { return strings.Contains(a, "HIP") }) {
		t.Errorf("core has an option of hip, so changing that would rebuild both: %q", core)
	}
	for _, args := range [][]string{core, hip} {
		for _, off := range []string{"GGML_RPC", "GGML_CCACHE", "GGML_NATIVE", "LLAMA_OPENSSL"} { // on by default, except for RPC
			given := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return !strings.HasPrefix(a, "-D"+off+"=") })
			if !slices.Equal(given, []string{"-D" + off + "=OFF"}) {
				t.Errorf("%s is given as %q", off, given)
			}
		}
	}
	for name, c := range map[string][]string{"core": core, "hip": hip} {
		protections := map[string][]string{"CMAKE_C_FLAGS": protection(""), "CMAKE_CXX_FLAGS": protection("")}
		if name == "hip" {
			protections["CMAKE_HIP_FLAGS"] = protection("-Xarch_host ") // not for device code
		}
		for option, want := range protections {
			i := slices.IndexFunc(c, func(a string) bool { return strings.HasPrefix(a, "-D"+option+"=") })
			for _, flag := range want {
				if i < 0 || !strings.Contains(c[i]+" ", flag+" ") {
					t.Errorf("%s of %s lacks %q: %q", option, name, flag, c)
				}
			}
		}
		for _, kind := range []string{"EXE", "SHARED", "MODULE"} {
			if !slices.ContainsFunc(c, func(a string) bool {
				return strings.HasPrefix(a, "-DCMAKE_"+kind+"_LINKER_FLAGS=") && strings.Contains(a, "-Wl,-z,relro,-z,now,-z,noexecstack")
			}) {
				t.Errorf("%s is linked as %s without protection: %q", name, kind, c)
			}
		}
	}
}

// protection returns the flags with which all our code is compiled.
func protection(before string) []string {
	flags := []string{"-fstack-protector-strong", "-fstack-clash-protection", "-fcf-protection", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"}
	for i := range flags {
		flags[i] = before + flags[i]
	}
	return flags
}

func TestVariantsNameTheirComponents(t *testing.T) {
	lock, err := SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	all := components(lock, targets(t, "gfx1100"))
	for _, v := range Variants() {
		for _, name := range v.Components {
			if _, ok := all[name]; !ok {
				t.Errorf("variant %s names %q", v.Name, name)
			}
		}
		if got, err := VariantByName(v.Name); err != nil || got.Name != v.Name {
			t.Errorf("VariantNamed(%s): %v, %v", v.Name, got, err)
		}
	}
	if _, err := VariantByName("metal"); err == nil {
		t.Error("an unknown variant was found")
	}
}

func TestLimited(t *testing.T) {
	var b bytes.Buffer
	l := &limitedWriter{w: &b, left: 5}
	for range 3 {
		if n, err := io.WriteString(l, "abc"); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if b.String() != "abcab" {
		t.Errorf("got %q", b.String())
	}
}
