package recipe

import (
	"errors"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/llvm"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// hardened returns a file that was built like ours.
func hardened(soname string) elfgen.Spec {
	return elfgen.Spec{
		SONAME: soname, Needed: []string{"libc.so.6"}, RunPath: "$ORIGIN", BindNow: true, RELRO: true,
		Symbols: []elfgen.Symbol{{Name: "__stack_chk_fail", Undefined: true}, {Name: "__memcpy_chk", Undefined: true}},
	}
}

// provable returns a bundle without defects: the C library and zlib come from the image, the other
// files are ours.
func provable() map[string]elfgen.Spec {
	registry := hardened("libggml.so.0")
	registry.Symbols = registry.Symbols[:1]
	zlib := elfgen.Spec{SONAME: "libz.so.1", Sections: []elfgen.Section{
		{Name: ".gnu_debuglink", Data: []byte("ab.debug")}, {Name: ".rodata", Data: []byte("\x00/build/zlib.c\x00")},
	}}
	return map[string]elfgen.Spec{
		"llama-server": hardened(""), "libllama.so.0": hardened("libllama.so.0"), "libggml.so.0": registry, "libLLVM.so.21.1": hardened("libLLVM.so.21.1"),
		"libz.so.1": zlib, "libc.so.6": {SONAME: "libc.so.6", Symbols: []elfgen.Symbol{{Name: "__stack_chk_fail"}, {Name: "__memcpy_chk"}}},
	}
}

func TestProve(t *testing.T) {
	text := func(s string) elfgen.Section {
		return elfgen.Section{Name: ".rodata", Data: []byte("\x00" + s + "\x00")}
	}
	for _, tc := range []struct {
		name, file string
		change     func(*elfgen.Spec)
		says       string // empty: nothing
	}{
		{"as it should be", "libllama.so.0", func(*elfgen.Spec) {}, ""},
		{"no run path", "libllama.so.0", func(s *elfgen.Spec) { s.RunPath = "" }, ""},
		{"LLVM's own /src", "libLLVM.so.21.1", func(s *elfgen.Spec) { s.Sections = append(s.Sections, text("/src/headerblock")) }, ""},
		{"a run path in ours", "libllama.so.0", func(s *elfgen.Spec) { s.RunPath = "/opt/lib" }, `libllama.so.0 has the run path "/opt/lib"`},
		{"a run path in the image's", "libz.so.1", func(s *elfgen.Spec) { s.RPath = "/usr/lib/rocm" }, `libz.so.1 has the run path "/usr/lib/rocm"`},
		{"the source's path", "llama-server", func(s *elfgen.Spec) { s.Sections = append(s.Sections, text("/src/common/arg.cpp")) }, `llama-server contains the build path "/src/common/arg.cpp"`},
		{"the build's path", "libllama.so.0", func(s *elfgen.Spec) { s.Sections = append(s.Sections, text("/build/tree/x.o")) }, `libllama.so.0 contains the build path "/build/tree/x.o"`},
		{"the build's path in LLVM", "libLLVM.so.21.1", func(s *elfgen.Spec) { s.Sections = append(s.Sections, text("/build/a.cpp")) }, `libLLVM.so.21.1 contains the build path "/build/a.cpp"`},
		{"no RELRO", "libllama.so.0", func(s *elfgen.Spec) { s.RELRO = false }, "libllama.so.0: no RELRO"},
		{"weak twice", "llama-server", func(s *elfgen.Spec) { s.BindNow, s.ExecStack = false, true }, "llama-server: no BIND_NOW, executable stack"},
		{"no stack protector", "libggml.so.0", func(s *elfgen.Spec) { s.Symbols = nil }, "libggml.so.0: no stack protector"},
		{"nothing fortified", "libllama.so.0", func(s *elfgen.Spec) { s.Symbols = s.Symbols[:1] }, "libllama.so.0: no fortified function"},
		{"nothing fortified in LLVM", "libLLVM.so.21.1", func(s *elfgen.Spec) { s.Symbols = s.Symbols[:1] }, "libLLVM.so.21.1: no fortified function"},
		{"weak and needing nothing", "libllama.so.0", func(s *elfgen.Spec) { s.RELRO, s.Needed = false, nil }, "libllama.so.0: no RELRO"},
		{
			"debug sections", "libllama.so.0", func(s *elfgen.Spec) {
				s.Sections = append(s.Sections, elfgen.Section{Name: ".debug_info", Data: []byte("x")})
			},
			"libllama.so.0 is not stripped: it has .debug_info",
		},
		{"an unresolved symbol", "libllama.so.0", func(s *elfgen.Spec) { s.Symbols = append(s.Symbols, elfgen.Symbol{Name: "ggml_gone", Undefined: true}) }, "ggml_gone (needed by libllama.so.0)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := provable()
			s := files[tc.file]
			tc.change(&s)
			files[tc.file] = s
			c := &collector{
				dir: directory(t, files), linked: &llvm.Library{SONAME: "libLLVM.so.21.1"},
				libs: &libraries{libs: []elfdep.Lib{{SONAME: "libz.so.1"}, {SONAME: "libc.so.6"}}},
			}
			err := c.prove()
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// Only the definitions of the host's libraries are used.
func TestProveWithTheHostsLibraries(t *testing.T) {
	files := provable()
	s := files["libllama.so.0"]
	s.Symbols = append(s.Symbols, elfgen.Symbol{Name: "hipInit", Undefined: true})
	files["libllama.so.0"] = s
	host := directory(t, map[string]elfgen.Spec{"libamdhip64.so.6": {SONAME: "libamdhip64.so.6", RunPath: "/opt/rocm/lib", Symbols: []elfgen.Symbol{{Name: "hipInit"}}}})
	c := &collector{dir: directory(t, files), libs: &libraries{libs: []elfdep.Lib{{SONAME: "libz.so.1"}, {SONAME: "libc.so.6"}}}}
	var unresolved *elfdep.UnresolvedError
	if err := c.prove(); !errors.As(err, &unresolved) {
		t.Errorf("without the host: %v", err)
	}
	c.fromHost = []elfdep.Lib{{SONAME: "libamdhip64.so.6", Path: host + "/libamdhip64.so.6"}}
	if err := c.prove(); err != nil {
		t.Errorf("with the host: %v", err)
	}
}
