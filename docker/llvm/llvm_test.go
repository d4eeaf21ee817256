package llvm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func linkedSymbols(names ...string) []elfdep.Symbol {
	var all []elfdep.Symbol
	for _, n := range names {
		all = append(all, elfdep.Symbol{Name: n, Version: "LLVM_21.1"})
	}
	return all
}

func TestLinkFiles(t *testing.T) {
	in := Inputs{
		SONAME: "libLLVM.so.21.1", Targets: []string{"AMDGPU", "X86"}, Stubs: "stubs",
		Wanted: linkedSymbols("LLVMInitializeAMDGPUTargetMC", "LLVMInitializeARMAsmParser", "LLVMInitializeNVPTXTarget",
			"LLVMInitializeSystemZTargetInfo", "LLVMInitializeX86Target", "LLVMInitializeCore", "_ZN4llvm4errsEv"),
	}
	got, err := linkFiles(in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"stubs.cpp":   "stubs",
		"targets.inc": "NO_TARGET(LLVMInitializeARMAsmParser)\nNO_TARGET(LLVMInitializeNVPTXTarget)\nNO_TARGET(LLVMInitializeSystemZTargetInfo)\n",
		"wanted": "LLVMInitializeAMDGPUTargetMC\nLLVMInitializeARMAsmParser\nLLVMInitializeNVPTXTarget\nLLVMInitializeSystemZTargetInfo\n" +
			"LLVMInitializeX86Target\nLLVMInitializeCore\n_ZN4llvm4errsEv\n",
		"versions.map": "LLVM_21.1 {\nglobal:\n\tLLVMInitializeAMDGPUTargetMC;\n\tLLVMInitializeARMAsmParser;\n\tLLVMInitializeNVPTXTarget;\n" +
			"\tLLVMInitializeSystemZTargetInfo;\n\tLLVMInitializeX86Target;\n\tLLVMInitializeCore;\n\t_ZN4llvm4errsEv;\nlocal:\n\t*;\n};\n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, wanted := range map[string][]elfdep.Symbol{
		"nothing":      nil,
		"no version":   {{Name: "a"}},
		"two versions": {{Name: "a", Version: "LLVM_21.1"}, {Name: "b", Version: "LLVM_21.2"}},
	} {
		in.Wanted = wanted
		if files, err := linkFiles(in); err == nil {
			t.Errorf("%s: %v", name, files)
		}
	}
}

// linker is an engine for the jobs of a link: the fetch, then the link itself.
type linker struct {
	engine.Engine
	errs []error // how each job ends
	jobs []engine.Job
}

func (l *linker) Image(context.Context, string) (engine.Image, error) {
	return engine.Image{ID: "sha256:image"}, nil
}

func (l *linker) Run(_ context.Context, job engine.Job) error {
	err := l.errs[len(l.jobs)]
	l.jobs = append(l.jobs, job)
	if err != nil {
		return err
	}
	for _, in := range job.In {
		if err := in.Write(tar.NewWriter(io.Discard)); err != nil {
			return err
		}
	}
	return job.Out[0].Read(&tar.Header{Name: "out/libLLVM.so.21.1", Typeflag: tar.TypeReg, Mode: 0o755}, strings.NewReader("linked"))
}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

func discardLog(string) (io.WriteCloser, error) { return discard{io.Discard}, nil }

// TestLinkErrors checks which errors make a bundle ship the whole libLLVM, and which fail a
// build.
func TestLinkErrors(t *testing.T) {
	broken := errors.New("the engine is gone")
	for _, tc := range []struct {
		name     string
		errs     []error
		fallback bool // for packages that nobody locked
		works    bool
	}{
		{"linked", []error{nil, nil}, false, true},
		{"not in the archive", []error{&engine.ExitError{Code: 65}}, true, false},
		{"the archive cannot be reached", []error{&engine.ExitError{Code: 100}}, false, false},
		{"the link fails", []error{nil, &engine.ExitError{Code: 1, LastLogs: []string{"undefined symbol: Z3_mk_config"}}}, true, false},
		{"no engine", []error{nil, broken}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cache, err := stage.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			eng := &linker{errs: tc.errs}
			b := &Builder{Engine: eng, Cache: cache, OpenLog: discardLog, Log: io.Discard, Toolchain: &toolchain.Toolchain{ID: "sha256:image"}}
			l := toolchain.LLVM{Major: "21", Development: toolchain.Package{Name: "llvm-21-dev", Version: "1:21.2-1", Arch: "amd64"}}
			in := Inputs{Package: l.Development, Major: "21", Script: linkScript, SONAME: "libLLVM.so.21.1", Needed: []string{"libz.so.1"}, Wanted: linkedSymbols("a")}
			res, err := b.Link(t.Context(), l, in)
			var failed *Error
			if errors.As(err, &failed) != tc.fallback || (err == nil) != tc.works {
				t.Fatalf("%v", err)
			}
			if !tc.works {
				if failed != nil && !strings.Contains(failed.Error(), "llvm-21-dev 1:21.2-1") {
					t.Errorf("the error does not name the package: %v", failed)
				}
				return
			}
			if b, err := os.ReadFile(filepath.Join(res.Dir, in.SONAME)); err != nil || string(b) != "linked" {
				t.Errorf("%q, %v", b, err)
			}
			if link := eng.jobs[1]; link.Network || link.UID == 0 {
				t.Errorf("the link must have no network and no root: %+v", link)
			}
		})
	}
}

func TestAllowsWhole(t *testing.T) {
	gone, broken := error(&toolchain.NotInArchiveError{}), error(&engine.ExitError{Code: 1})
	for _, tc := range []struct {
		lockedPackage, lockedBuild bool
		err                        error
		want                       bool
	}{
		{false, false, gone, true},
		{false, false, broken, true},
		{true, false, gone, true},
		{true, false, broken, false},
		{false, true, gone, false},
		{true, true, gone, false},
	} {
		e := &Error{LLVM: toolchain.LLVM{Locked: tc.lockedPackage}, Err: fmt.Errorf("stage llvm: %w", tc.err)}
		if got := e.AllowsWhole(tc.lockedBuild); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
		m := &bundle.Manifest{Toolchain: bundle.Toolchain{Deviations: []string{"zstd 1 is not in the lock", e.Deviation()}}}
		if !IsWhole(m) || IsWhole(&bundle.Manifest{Toolchain: bundle.Toolchain{Deviations: m.Toolchain.Deviations[:1]}}) {
			t.Error("the manifest does not mark a bundle with the whole libLLVM")
		}
	}
}

func TestBuiltinSource(t *testing.T) {
	const source = "__kernel void __amd_rocclr_copyBuffer(__global uchar* p) { p[0] = 1; }"
	write := func(data string) string {
		name := filepath.Join(t.TempDir(), "libamdhip64.so.6")
		s := elfgen.Spec{SONAME: "libamdhip64.so.6", Sections: []elfgen.Section{{Name: ".rodata", Data: []byte(data)}}}
		if err := os.WriteFile(name, s.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	got, err := builtinSource(write("text\x00__kernel void __amd_rocclr_a() {}\x00\n" + source + " \x00more text that is longer than the source of the kernels, by some words\x00"))
	if err != nil || got != source {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := builtinSource(write("no kernels")); err == nil || !strings.Contains(err.Error(), "does not contain the source") {
		t.Errorf("%q, %v", got, err)
	}
}
