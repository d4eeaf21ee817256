package elfdep_test

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// EF_AMDGPU_MACH numbers of the targets in tests.
const (
	mach1030 = 0x36
	mach1100 = 0x41
	mach1101 = 0x46
)

const (
	hostID    = "host-x86_64-unknown-linux--"
	idPrefix  = "hipv4-amdgcn-amd-amdhsa--"
	id1030    = idPrefix + "gfx1030"
	id1100    = idPrefix + "gfx1100"
	id1101    = idPrefix + "gfx1101"
	systemDir = "usr/lib/x86_64-linux-gnu"
)

// tree writes files below a new folder: []byte and elfgen.Spec as content,
// string as the target of a symbolic link.
func tree(t testing.TB, files map[string]any) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch c := content.(type) {
		case string:
			err = os.Symlink(c, p)
		case []byte:
			err = os.WriteFile(p, c, 0o755)
		case elfgen.Spec:
			err = os.WriteFile(p, c.Bytes(), 0o755)
		default:
			t.Fatalf("%s: content of type %T", name, c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// lib is a library with a SONAME and dependencies.
func lib(soname string, needed ...string) elfgen.Spec {
	return elfgen.Spec{SONAME: soname, Needed: needed}
}

// write puts one file into a new folder and gives its path.
func write(t testing.TB, name string, content any) string {
	t.Helper()
	return filepath.Join(tree(t, map[string]any{name: content}), name)
}

// fatLibrary is a library with GPU code of several translation units for
// gfx1030, gfx1100 and gfx1101.
func fatLibrary(units ...[]string) elfgen.Spec {
	var bundles [][]byte
	for i, kernels := range units {
		fill := 5000 * (i + 1)
		bundles = append(bundles, elfgen.Bundle(
			elfgen.Entry{ID: hostID},
			elfgen.Entry{ID: id1030, Code: elfgen.CodeObject(mach1030, kernels, fill)},
			elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, kernels, fill)},
			elfgen.Entry{ID: id1101, Code: elfgen.CodeObject(mach1101, kernels, fill+1)},
		))
	}
	s := lib("libfat.so.1")
	s.Sections = []elfgen.Section{elfgen.FatBinary(bundles...)}
	return s
}

// largeFat is a library whose code for gfx1030 takes 8 MiB, in the middle.
func largeFat() elfgen.Spec {
	s := lib("large.so")
	s.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, []string{"k"}, 100)},
		elfgen.Entry{ID: id1030, Code: elfgen.CodeObject(mach1030, []string{"k"}, 8<<20)},
		elfgen.Entry{ID: id1101, Code: elfgen.CodeObject(mach1101, []string{"k"}, 100)},
	))}
	return s
}
