package recipe

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/llvm"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// fileLists is an image with dpkg's file lists only.
type fileLists map[string]string

func (fileLists) Stat(context.Context, string) (engine.Entry, error) { return engine.Entry{}, nil }
func (fileLists) Close() error                                       { return nil }

func (f fileLists) Walk(_ context.Context, _ string, fn func(*tar.Header, io.Reader) error) error {
	for pkg, files := range f {
		if err := fn(&tar.Header{Name: "info/" + pkg + ".list", Typeflag: tar.TypeReg}, strings.NewReader(files)); err != nil {
			return err
		}
	}
	return nil
}

// A libLLVM is linked only if the closure needs one and there is a package with its static
// libraries; otherwise the bundle is not changed.
func TestLinksOnlyDebiansLLVM(t *testing.T) {
	debian := &llvm.Plan{LLVM: toolchain.LLVM{Runtime: toolchain.Package{Name: "libllvm21"}}}
	comgr := elfdep.Lib{SONAME: "libamd_comgr.so.3", InRoot: "/opt/rocm/lib/libamd_comgr.so.3"}
	amd := elfdep.Lib{SONAME: "libLLVM.so.20.0", InRoot: "/opt/rocm/llvm/lib/libLLVM.so.20.0"}
	for _, tc := range []struct {
		name string
		plan *llvm.Plan
		libs []elfdep.Lib
		says string
	}{
		{"LLVM is inside comgr", debian, []elfdep.Lib{comgr}, ""},
		{"no package of libLLVM", nil, []elfdep.Lib{comgr, amd}, ""},
		{"libLLVM of another package", debian, []elfdep.Lib{comgr, amd}, "/opt/rocm/llvm/lib/libLLVM.so.20.0 is of package rocm-llvm, not of libllvm21: the whole library is bundled"},
	} {
		var said bytes.Buffer
		c := &collector{recipe: &Recipe{Log: &said}, variant: Variant{Name: "hip"}, llvm: tc.plan, libs: &libraries{libs: tc.libs, all: tc.libs}}
		root := &rootfs{files: imageFiles{fileLists{"rocm-llvm": amd.InRoot + "\n", "comgr:amd64": comgr.InRoot + "\n"}}}
		if err := c.linkLLVM(t.Context(), root); err != nil || c.linked != nil || len(c.excluded) > 0 {
			t.Errorf("%s: %v, linked %v", tc.name, err, c.linked)
		}
		if !strings.Contains(said.String(), tc.says) || (tc.says == "") != (said.Len() == 0) {
			t.Errorf("%s: said %q", tc.name, said.String())
		}
		if err := c.proveLLVM(t.Context()); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	c := &collector{recipe: &Recipe{Log: io.Discard}, llvm: debian, libs: &libraries{libs: []elfdep.Lib{amd}}}
	if err := c.linkLLVM(t.Context(), &rootfs{files: imageFiles{fileLists{}}}); err == nil || !strings.Contains(err.Error(), "no package of the image owns") {
		t.Errorf("a libLLVM that no package owns: %v", err)
	}
}

func TestUnlockedLLVMIsDeviation(t *testing.T) {
	for _, tc := range []struct {
		name              string
		known, image      bool
		lockedBuild, fail bool
		deviations        int
	}{
		{"locked", true, false, true, false, 0},
		{"not locked", false, false, false, false, 1},
		{"not locked in a locked build", false, false, true, true, 0},
		{"the lock does not speak of the user's image", false, true, true, false, 0},
	} {
		spec := toolchain.Spec{Kind: "debian", Locked: tc.lockedBuild}
		if tc.image {
			spec.BaseImage = "somebody/rocm"
		}
		plan := &llvm.Plan{LLVM: toolchain.LLVM{Locked: tc.known, Development: toolchain.Package{Name: "llvm-22-dev", Version: "1:22.1-1"}}}
		c := &collector{recipe: &Recipe{Toolchain: spec}, llvm: plan}
		err := c.checkLLVMLock()
		if (err != nil) != tc.fail || len(c.deviations) != tc.deviations {
			t.Errorf("%s: %v, %q", tc.name, err, c.deviations)
		}
		if tc.fail && !strings.Contains(err.Error(), "llvm-22-dev 1:22.1-1 is not in the lock") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// The linked libLLVM has another name than the whole one, everywhere in the bundle: a Vulkan driver of
// the host that needs the whole one must not get it.
func TestLinkedLLVMHasItsOwnName(t *testing.T) {
	for soname, want := range map[string]string{"libLLVM.so.21.1": "libLLVMr.so.21", "libLLVM.so.20.0": "libLLVMr.so.20"} {
		if got := bundledName(soname); got != want || len(got) > len(soname) || got == soname {
			t.Errorf("%s becomes %s", soname, got)
		}
	}
	dir := directory(t, map[string]elfgen.Spec{
		"libamd_comgr.so.3": {SONAME: "libamd_comgr.so.3", Needed: []string{"libLLVM.so.21.1", "libc.so.6"}},
		"libLLVM.so.21.1":   {SONAME: "libLLVM.so.21.1", Needed: []string{"libc.so.6"}},
	})
	c := &collector{dir: dir, variant: Variant{Components: []string{"core", "hip", "vulkan"}}, linked: &llvm.Library{SONAME: "libLLVM.so.21.1"}, libs: &libraries{needed: map[string][]string{
		"libamd_comgr.so.3": {"libLLVM.so.21.1", "libc.so.6"}, "libLLVM.so.21.1": {"libc.so.6"},
	}}}
	if err := c.renameLLVM(); err != nil {
		t.Fatal(err)
	}
	if got := c.libs.needed["libamd_comgr.so.3"][0]; got != "libLLVMr.so.21" || c.linked.SONAME != got || c.libs.needed[got] == nil || c.libs.needed["libLLVM.so.21.1"] != nil {
		t.Errorf("the manifest would say %v", c.libs.needed)
	}
	libs, err := elfdep.Closure([]string{filepath.Join(dir, "libamd_comgr.so.3")}, elfdep.Options{Root: t.TempDir(), Stage: []string{dir}, Stop: []string{"libc.so.6"}})
	if err != nil || len(libs) != 2 || libs[1].SONAME != "libLLVMr.so.21" {
		t.Errorf("%+v, %v", libs, err)
	}
}
