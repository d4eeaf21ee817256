package toolchain

import (
	"bytes"
	"strings"
	"testing"
)

func TestLLVMOf(t *testing.T) {
	pkg := func(name, version string) Package {
		return Package{Name: name, Version: version, Arch: "amd64", SHA256: "of " + name}
	}
	for _, tc := range []struct {
		name string
		pkgs []Package
		want string // name and version of the package to fetch; "": none
	}{
		{"none", []Package{pkg("llvm-21", "1:21.1.8-13"), pkg("libllvm-ocaml-dev", "1")}, ""},
		{"another version", []Package{pkg("gcc", "1"), pkg("libllvm21", "1:21.1.9-1")}, "llvm-21-dev 1:21.1.9-1"},
		{"of the move to 64-bit time", []Package{pkg("libllvm17t64", "1:17.0.6-9")}, "llvm-17-dev 1:17.0.6-9"},
		{"the newest of several", []Package{pkg("libllvm19", "1:19.1.7-3"), pkg("libllvm9", "1:9.0-1"), pkg("libllvm21", "1:21.2-1")}, "llvm-21-dev 1:21.2-1"},
	} {
		l, ok, err := FindLLVM(tc.pkgs)
		if got := strings.TrimSpace(l.Development.Name + " " + l.Development.Version); err != nil || got != tc.want || ok != (tc.want != "") || l.Locked {
			t.Errorf("%s: got %q, %t, locked %t, %v; want %q", tc.name, got, ok, l.Locked, err, tc.want)
		}
	}
}

// The lock of the static libraries must match that of the toolchain, otherwise every build would
// deviate from it.
func TestLLVMLockFollowsTheToolchain(t *testing.T) {
	pkgs, err := Locked(HIP)
	if err != nil {
		t.Fatal(err)
	}
	l, ok, err := FindLLVM(pkgs)
	if err != nil || !ok || !l.Locked || len(l.Development.SHA256) != 64 {
		t.Fatalf("%+v, %t, %v: run `mage lock`", l, ok, err)
	}
	committed, err := locks.ReadFile(LLVMLockName)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := FormatLLVMLock(&b, l.Development); err != nil || b.String() != string(committed) {
		t.Errorf("`mage lock` would write %q, %v", b.String(), err)
	}
}
