package elfdep_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestHardening(t *testing.T) {
	hard := elfgen.Spec{BindNow: true, RELRO: true, Symbols: []elfgen.Symbol{
		{Name: "__stack_chk_fail", Undefined: true}, {Name: "__printf_chk", Undefined: true}, {Name: "__memcpy_chk", Undefined: true}, {Name: "__own_chk"},
	}}
	with := func(change func(*elfgen.Spec)) elfgen.Spec { s := hard; change(&s); return s }
	for _, c := range []struct {
		name string
		spec elfgen.Spec
		weak []string
	}{
		{"all protections", hard, nil},
		{"RUNPATH is ORIGIN", with(func(s *elfgen.Spec) { s.RunPath = "$ORIGIN" }), nil},
		{"position dependent", with(func(s *elfgen.Spec) { s.Type = elf.ET_EXEC }), []string{"not position independent"}},
		{"no RELRO", with(func(s *elfgen.Spec) { s.RELRO = false }), []string{"no RELRO"}},
		{"lazy binding", with(func(s *elfgen.Spec) { s.BindNow = false }), []string{"no BIND_NOW"}},
		{"executable stack", with(func(s *elfgen.Spec) { s.ExecStack = true }), []string{"executable stack"}},
		{"no word on the stack", with(func(s *elfgen.Spec) { s.NoStack = true }), []string{"executable stack"}},
		{"writable code", with(func(s *elfgen.Spec) { s.WritableRun = true }), []string{"a segment both writable and executable"}},
		{"text relocations", with(func(s *elfgen.Spec) { s.TextRel = true }), []string{"text relocations"}},
		{"RUNPATH elsewhere", with(func(s *elfgen.Spec) { s.RunPath = "$ORIGIN:/build/lib" }), []string{`RUNPATH "/build/lib" is not $ORIGIN`}},
		{"old RPATH", with(func(s *elfgen.Spec) { s.RPath = "/opt/rocm/lib" }), []string{`RUNPATH "/opt/rocm/lib" is not $ORIGIN`}},
		{"static, position dependent", elfgen.Spec{Type: elf.ET_EXEC, Static: true}, []string{"not position independent", "no RELRO", "no BIND_NOW"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := elfdep.Hardening(elfgen.WriteFile(t, "f", c.spec))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.weak, h.Weak()); d != "" {
				t.Error(d)
			}
			if c.spec.Static {
				return
			}
			if d := cmp.Diff([]string{"__memcpy_chk", "__printf_chk"}, h.Fortify); d != "" || !h.StackProtector {
				t.Error(h.StackProtector, d)
			}
		})
	}
	if _, err := elfdep.Hardening(elfgen.WriteFile(t, "f", []byte("text"))); !errors.As(err, new(*elfdep.FormatError)) {
		t.Errorf("a text file: %v", err)
	}
}

func TestDebugSections(t *testing.T) {
	s := elfgen.Library("l.so")
	for _, n := range []string{".text", ".debug_info", ".zdebug_line", ".symtab", ".gnu_debuglink", ".gdb_index", ".debugger_notes", ".eh_frame"} {
		s.Sections = append(s.Sections, elfgen.Section{Name: n, Data: []byte{1}})
	}
	got, err := elfdep.DebugSections(elfgen.WriteFile(t, "l.so", s))
	if d := cmp.Diff([]string{".debug_info", ".zdebug_line", ".symtab", ".gnu_debuglink", ".gdb_index"}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err := elfdep.DebugSections(elfgen.WriteFile(t, "l.so", elfgen.Library("l.so"))); err != nil || len(got) != 0 {
		t.Errorf("stripped: %v, %v", got, err)
	}
}

func TestRemoveRunpath(t *testing.T) {
	hip := hipLibrary()
	hip.RunPath, hip.RPath, hip.BindNow = "$ORIGIN/../lib:/build/x", "/build/y", true
	hip.Needed = []string{"libz.so.1", "liba.so.1"}
	path := elfgen.WriteFile(t, "l.so", hip)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, path)
	removed, err := elfdep.RemoveRunpath(path)
	if err != nil || !removed {
		t.Fatal(removed, err)
	}
	after := readFile(t, path)
	// The same file without them, but for the two entries' places and strings.
	h, err := elfdep.Hardening(path)
	if err != nil || len(h.Runpath) != 0 || !h.BindNow {
		t.Errorf("%+v, %v", h, err)
	}
	f, err := elf.NewFile(bytes.NewReader(after))
	if err != nil {
		t.Fatal(err)
	}
	needed, err := f.DynString(elf.DT_NEEDED)
	if d := cmp.Diff(hip.Needed, needed); err != nil || d != "" {
		t.Error(err, d)
	}
	dyn := f.Section(".dynamic")
	end := dyn.Offset + dyn.Size
	if !bytes.Equal(before[:dyn.Offset], after[:dyn.Offset]) || !bytes.Equal(before[end:], after[end:]) {
		t.Error("bytes outside of the dynamic section changed")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Error(fi.Mode(), err)
	}
	checkOnlyFile(t, path)
	if removed, err := elfdep.RemoveRunpath(path); removed || err != nil {
		t.Errorf("again: %v, %v", removed, err)
	}
	if !bytes.Equal(after, readFile(t, path)) {
		t.Error("a second run changed the file")
	}
	if removed, err := elfdep.RemoveRunpath(elfgen.WriteFile(t, "s", elfgen.Spec{Static: true})); removed || err != nil {
		t.Errorf("static program: %v, %v", removed, err)
	}
}

func TestScanStrings(t *testing.T) {
	dirs := []string{"/build", "/src"}
	text := strings.Join([]string{
		"/build/llama/x.c", "in file /src/ggml.c line 3", "/build", "-I/src", "=/build:", // leaks
		"/usr/src/linux", "/builder/x", "/src.bak", "a/srcs", "/Src", "./build/x", "~/build", "x/build", // none
	}, "\x00\x01")
	got, err := elfdep.ScanStrings(strings.NewReader(text), dirs, 0)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, l := range got {
		texts = append(texts, l.Text)
		if !strings.HasPrefix(text[l.Offset:], l.Text) {
			t.Errorf("offset %d does not lead to %q", l.Offset, l.Text)
		}
	}
	if d := cmp.Diff([]string{"/build/llama/x.c", "/src/ggml.c line 3", "/build", "/build:"}, texts); d != "" {
		t.Error(d)
	}
	if got, err := elfdep.ScanStrings(strings.NewReader(text), dirs, 2); err != nil || len(got) != 2 {
		t.Errorf("limit 2: %v, %v", got, err)
	}
	for _, bad := range []string{"", "/", "build", "/build/", "/a/../b", "/" + strings.Repeat("x", 3000)} {
		if _, err := elfdep.ScanStrings(strings.NewReader(text), []string{bad}, 0); err == nil {
			t.Errorf("directory %.20q was taken", bad)
		}
	}
	broken := errors.New("disk on fire")
	if _, err := elfdep.ScanStrings(failing{broken}, dirs, 0); !errors.Is(err, broken) {
		t.Errorf("read error: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A path must be found once, wherever it crosses the boundaries of blocks.
func TestScanStringsAcrossBlocks(t *testing.T) {
	const block = 1 << 20
	for _, at := range []int{0, 1, block - 5000, block - 2049, block - 2048, block - 2047, block - 7, block - 6, block - 3, block, block + 1, 2*block - 4099, 2*block - 4096, 2*block - 2050} {
		data := make([]byte, 3*block)
		copy(data[at:], "/build/tree/file.c")
		got, err := elfdep.ScanStrings(bytes.NewReader(data), []string{"/build"}, 0)
		if err != nil || len(got) != 1 || got[0].Offset != int64(at) || got[0].Text != "/build/tree/file.c" {
			t.Errorf("at %d: %v, %v", at, got, err)
		}
	}
}

// A renamed library is the same for the loader under its new name: with its symbols, its versions and
// the files that need it.
func TestRenameLibrary(t *testing.T) {
	const from, to = "libLLVM.so.21.1", "libLLVMr.so.21"
	user := elfgen.WriteFile(t, "libamd_comgr.so.3", elfgen.Spec{
		SONAME: "libamd_comgr.so.3", Needed: []string{from, "libc.so.6"}, Wants: []elfgen.Versions{{Library: from, Names: []string{"LLVM_21.1"}}},
		Symbols: []elfgen.Symbol{{Name: "LLVMStart", Undefined: true, Version: "LLVM_21.1"}},
	})
	library := elfgen.WriteFile(t, from, elfgen.Spec{SONAME: from, Defines: []string{"LLVM_21.1"}, Symbols: []elfgen.Symbol{{Name: "LLVMStart", Version: "LLVM_21.1"}}})
	for _, path := range []string{user, library} {
		if ok, err := elfdep.RenameLibrary(path, from, to); !ok || err != nil {
			t.Fatalf("%s: %t, %v", path, ok, err)
		}
		if ok, err := elfdep.RenameLibrary(path, from, to); ok || err != nil {
			t.Errorf("%s again: %t, %v", path, ok, err)
		}
	}
	dir := t.TempDir()
	for name, path := range map[string]string{to: library, "libamd_comgr.so.3": user} {
		if err := os.Rename(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	libs, err := elfdep.Closure([]string{filepath.Join(dir, "libamd_comgr.so.3")}, elfdep.Options{Root: t.TempDir(), Stage: []string{dir}, Stop: []string{"libc.so.6"}})
	if err != nil || len(libs) != 2 || libs[1].SONAME != to || libs[0].Versions[0].Library != to {
		t.Errorf("%+v, %v", libs, err)
	}
	if _, err := elfdep.RenameLibrary(filepath.Join(dir, to), to, to+".1"); err == nil {
		t.Error("a longer name was accepted")
	}
}
