package elfdep_test

import (
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func FuzzELF(f *testing.F) {
	app := elfgen.Library("libx.so", "liba.so", "libb.so")
	app.RunPath, app.Interp, app.BindNow, app.RELRO = "$ORIGIN", "/lib/ld.so", true, true
	app.Wants = []elfgen.Versions{{Library: "libc.so.6", Names: []string{"GLIBC_2.34"}}}
	app.Defines = []string{"X_1"}
	app.Symbols = []elfgen.Symbol{{Name: "k.kd", Size: 64}, {Name: "dlopen", Undefined: true}}
	f.Add(app.Bytes())
	f.Add(hipLibrary().Bytes())
	f.Add(elfgen.CodeObject(0x41, []string{"k"}, 4))
	f.Add(elfgen.Spec{Static: true}.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		path := elfgen.WriteFile(t, "x", data)
		if libs, err := elfdep.Closure([]string{"/x"}, elfdep.Options{Root: path[:len(path)-2]}); err == nil && len(libs) == 0 {
			t.Fatal("a closure without its root")
		}
		_, _ = elfdep.OpenedNames(path)
		_, _ = elfdep.DebugSections(path)
		h, err := elfdep.Hardening(path)
		if err != nil || len(h.Runpath) == 0 {
			return // nothing to take out, and replacing a file is slow
		}
		removed, err2 := elfdep.RemoveRunpath(path)
		if err2 != nil {
			return
		}
		after, err := elfdep.Hardening(path)
		if err != nil || (removed && len(after.Runpath) > 0) {
			t.Fatalf("RUNPATH %q became %q, %v", h.Runpath, after.Runpath, err)
		}
	})
}
