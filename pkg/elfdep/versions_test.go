package elfdep_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestClosureVersions(t *testing.T) {
	libc := elfgen.Library("libc.so.6")
	libc.Defines = []string{"libc.so.6", "GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_ABI_DT_RELR"}
	app := elfgen.Library("", "libc.so.6", "libplain.so.1")
	app.Wants = []elfgen.Versions{
		{Library: "libc.so.6", Names: []string{"GLIBC_2.34", "GLIBC_2.4", "GLIBC_2.2.5", "GLIBC_ABI_DT_RELR"}},
		{Library: "libplain.so.1", Names: []string{"PLAIN_1"}}, // defines no versions: satisfied
	}
	files := map[string]any{"bin/app": app, "lib/libc.so.6": libc, "lib/libplain.so.1": elfgen.Library("libplain.so.1")}
	_, err := elfdep.Closure([]string{"/bin/app"}, elfdep.Options{Root: elfgen.WriteTree(t, files)})
	var ve *elfdep.VersionError
	if !errors.As(err, &ve) || ve.Version != "GLIBC_2.4" || ve.Library != "libc.so.6" || ve.NeededBy != "app" || ve.Path != "/lib/libc.so.6" {
		t.Fatalf("got %v, want a VersionError for GLIBC_2.4", err)
	}
	libc.Defines = append(libc.Defines, "GLIBC_2.4")
	files["lib/libc.so.6"] = libc
	libs, err := elfdep.Closure([]string{"/bin/app"}, elfdep.Options{Root: elfgen.WriteTree(t, files)})
	if err != nil {
		t.Fatal(err)
	}
	want := []elfdep.VersionNeed{
		{Library: "libc.so.6", Versions: []string{"GLIBC_2.2.5", "GLIBC_2.4", "GLIBC_2.34", "GLIBC_ABI_DT_RELR"}},
		{Library: "libplain.so.1", Versions: []string{"PLAIN_1"}},
	}
	if d := cmp.Diff(want, libs[0].Versions); d != "" {
		t.Error(d)
	}
	for prefix, want := range map[string]string{"GLIBC": "GLIBC_2.34", "PLAIN": "PLAIN_1", "GLIBCXX": ""} {
		if got := libs[0].Requires(prefix); got != want {
			t.Errorf("Requires(%s) = %q, want %q", prefix, got, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"CXXABI_1.3", "GLIBC_2.2.5", "GLIBC_2.4", "GLIBC_2.34", "GLIBC_PRIVATE", "GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.32"}
	for i := range sorted {
		for j := range sorted {
			if got, want := elfdep.CompareVersions(sorted[i], sorted[j]), compareInts(i, j); sign(got) != want {
				t.Errorf("CompareVersions(%s, %s) = %d, want %d", sorted[i], sorted[j], got, want)
			}
		}
	}
}

func compareInts(a, b int) int { return sign(a - b) }

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func TestDefines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "libx.so.1")
	data := elfgen.Spec{SONAME: "libx.so.1", Defines: []string{"libx.so.1", "X_1.2", "X_PRIVATE"}}.Bytes()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := elfdep.Defines(file)
	if err != nil || !slices.Equal(got, []string{"X_1.2", "X_PRIVATE"}) {
		t.Errorf("%q, %v", got, err)
	}
	for in, want := range map[string][2]string{
		"GLIBC_2.43": {"GLIBC", "2.43"}, "GLIBC_PRIVATE": {}, "GLIBC_ABI_DT_RELR": {}, "_1": {}, "X_": {}, "X": {}, "": {},
	} {
		kind, number, ok := elfdep.SplitVersion(in)
		if kind != want[0] || number != want[1] || ok != (want[0] != "") {
			t.Errorf("%q: %q, %q, %v", in, kind, number, ok)
		}
	}
}
