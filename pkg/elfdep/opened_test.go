package elfdep_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestOpenedNames(t *testing.T) {
	data := strings.Join([]string{
		"", "libamd_comgr.so.3", "/opt/rocm/lib/librocsolver.so.0", "libnss_%s.so.2", "plain.so", "ld64.so.1", "lib%s.so",
		// no names of libraries:
		"cannot open libfoo.so.1 at all", "-l:libunwind.so", "libbar.so.cache", "libc.so.", ".so", "x.sound", "libself.so.1", "liblong" + strings.Repeat("g", 600) + ".so",
		"libamd_comgr.so.3", // again
		"",
	}, "\x00")
	// The code that a compiler generates for copying "libhsa-ext-finalize64.so.1" (26 bytes,
	// 27 with the final zero) and "libhsa-amd-aqlprofile64.so" to the stack.
	split := "libhsa-ext-final" + "-finalize64.so.1" + "libhsa-amd-aqlpr" + "qlprofile64.so\x00\x00" + "0123456789abcdef" + "mov.so immediate"
	s := elfgen.Library("libself.so.1", "libneeded.so.1")
	s.Symbols = []elfgen.Symbol{{Name: "dlopen", Undefined: true}}
	s.Sections = []elfgen.Section{
		{Name: ".rodata", Flags: elf.SHF_ALLOC, Data: []byte(data)},
		{Name: ".rodata.cst16", Flags: elf.SHF_ALLOC, Data: []byte(split)},
		{Name: ".text", Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Data: []byte("\x00libcode.so.1\x00")},
		{Name: ".comment", Data: []byte("\x00libcomment.so.1\x00")},
		{Name: ".hip_fatbin", Flags: elf.SHF_ALLOC, Data: []byte("\x00libgpu.so.1\x00")},
	}
	for _, canOpen := range []bool{true, false} {
		if !canOpen {
			s.Symbols = nil
		}
		got, err := elfdep.OpenedNames(elfgen.WriteFile(t, "file.so", s))
		if err != nil {
			t.Fatal(err)
		}
		want := []elfdep.Candidate{
			{Name: "ld64.so.1"},
			{Name: "lib%s.so"},
			{Name: "libamd_comgr.so.3"},
			{Name: "libhsa-amd-aqlprofile64.so", Split: true},
			{Name: "libhsa-ext-finalize64.so.1", Split: true},
			{Name: "libnss_%s.so.2"},
			{Name: "librocsolver.so.0"},
			{Name: "plain.so"},
		}
		for i := range want {
			want[i].In, want[i].CanOpen = "libself.so.1", canOpen
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	bare := elfgen.Spec{Sections: []elfgen.Section{{Name: ".rodata", Flags: elf.SHF_ALLOC, Data: []byte("\x00liba.so\x00")}}}
	got, err := elfdep.OpenedNames(elfgen.WriteFile(t, "unnamed", bare))
	if d := cmp.Diff([]elfdep.Candidate{{Name: "liba.so", In: "unnamed"}}, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

func TestImports(t *testing.T) {
	s := elfgen.Library("m.so")
	s.Symbols = []elfgen.Symbol{
		{Name: "hipblasSgemm", Undefined: true}, {Name: "hipblasGemmEx", Undefined: true}, {Name: "hipblasOwn"}, {Name: "hipMalloc", Undefined: true},
	}
	got, err := elfdep.Imports(elfgen.WriteFile(t, "m.so", s), "hipblas")
	if d := cmp.Diff([]string{"hipblasGemmEx", "hipblasSgemm"}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err := elfdep.Imports(elfgen.WriteFile(t, "s", elfgen.Spec{Static: true}), ""); err != nil || len(got) != 0 {
		t.Errorf("static program: %v, %v", got, err)
	}
}

// The shipped list must decide about everything that the libraries of the
// toolchain were seen to hold, and every decision must still be of use.
func TestReviewedCoversDebian(t *testing.T) {
	decisions, err := elfdep.Reviewed()
	if err != nil {
		t.Fatal(err)
	}
	var candidates []elfdep.Candidate
	for _, line := range dataLines(t, "opened-debian-forky.txt") {
		var c elfdep.Candidate
		if n, err := fmt.Sscan(line, &c.Name, &c.In, &c.CanOpen, &c.Split); n != 4 {
			t.Fatalf("%q: %v", line, err)
		}
		candidates = append(candidates, c)
	}
	bundle, excluded, err := elfdep.Review(candidates, decisions, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	used := map[elfdep.Decision]bool{}
	for _, group := range []struct {
		word string
		list []elfdep.Verdict
	}{{"bundle", bundle}, {"exclude", excluded}} {
		for _, v := range group.list {
			used[v.Decision] = true
			fmt.Fprintf(&b, "%s %s in %s: %s\n", group.word, v.Candidate.Name, v.Candidate.In, v.Reason)
		}
	}
	golden(t, "reviewed.golden", b.String())
	for _, d := range decisions {
		if !used[d] {
			t.Errorf("the decision about %s in %s applies to nothing that was seen", d.Name, d.In)
		}
	}
}

func TestReview(t *testing.T) {
	decisions, err := elfdep.ParseDecisions("# comment\n\n bundle liba.so.* libx.so.* it is needed for a\nexclude libb.so.? * never used\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []elfdep.Decision{{true, "liba.so.*", "libx.so.*", "it is needed for a"}, {false, "libb.so.?", "*", "never used"}}
	if d := cmp.Diff(want, decisions); d != "" {
		t.Fatal(d)
	}
	in := func(name, in string) elfdep.Candidate { return elfdep.Candidate{Name: name, In: in} }
	cands := []elfdep.Candidate{in("libb.so.1", "liby.so"), in("liba.so.1", "libx.so.2"), in("liba.so.1", "liby.so"), in("libhere.so", "liby.so"), in("libb.so.10", "liby.so")}
	bundle, excluded, err := elfdep.Review(cands, decisions, func(s string) bool { return s == "libhere.so" })
	if len(bundle) != 1 || bundle[0].Candidate != cands[1] || bundle[0].Reason != "it is needed for a" {
		t.Errorf("bundle %+v", bundle)
	}
	if len(excluded) != 1 || excluded[0].Candidate != cands[0] {
		t.Errorf("excluded %+v", excluded)
	}
	var ue *elfdep.UnreviewedError
	if !errors.As(err, &ue) {
		t.Fatalf("got %v, want an UnreviewedError", err)
	}
	if d := cmp.Diff([]elfdep.Candidate{cands[2], cands[4]}, ue.Names); d != "" {
		t.Error(d)
	}
	if s := err.Error(); !strings.Contains(s, "libb.so.10 (in liby.so)") {
		t.Errorf("unhelpful: %s", s)
	}
}

func TestParseDecisionsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"bundle liba.so libx.so":                          "line 1: want",
		"\nship liba.so libx.so why":                      "line 2: \"ship\"",
		"bundle lib[.so libx.so why":                      "pattern",
		"exclude a.so [x why":                             "pattern",
		"bundle a.so x.so one\n#\nexclude a.so x.so two":  "line 3: a.so in x.so is decided twice",
		"bundle a.so x.so " + strings.Repeat("x", 70_000): "too long",
	} {
		if got, err := elfdep.ParseDecisions(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, %v, want an error with %q", text, got, err, want)
		}
	}
}

func FuzzParseDecisions(f *testing.F) {
	f.Add("bundle a.so* b.so a reason\n# c\nexclude [a-z].so * other")
	f.Add("exclude a b c")
	f.Fuzz(func(t *testing.T, text string) {
		ds, err := elfdep.ParseDecisions(text)
		if err != nil {
			return
		}
		for _, d := range ds {
			if d.Name == "" || d.In == "" || d.Reason == "" {
				t.Fatalf("incomplete decision %+v", d)
			}
		}
	})
}
