package elfdep_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestUnresolved(t *testing.T) {
	undefined := func(name, version string) elfgen.Symbol {
		return elfgen.Symbol{Name: name, Undefined: true, Version: version}
	}
	app := elfgen.Library("", "liba.so.1", "libb.so.1")
	app.Wants = []elfgen.Versions{{Library: "liba.so.1", Names: []string{"A_1", "A_2"}}, {Library: "libb.so.1", Names: []string{"B_1"}}}
	app.Symbols = []elfgen.Symbol{
		undefined("here", ""), undefined("gone", ""),
		{Name: "maybe", Undefined: true, Weak: true},
		{Name: "main"},
		undefined("first", "A_1"), undefined("second", "A_1"), undefined("second", "A_2"), undefined("third", "A_2"), undefined("plain", "B_1"),
	}
	a := elfgen.Library("liba.so.1")
	a.Defines = []string{"A_1", "A_2"}
	a.Symbols = []elfgen.Symbol{
		{Name: "here"}, undefined("main", ""), {Name: "first", Version: "A_1"}, {Name: "second", Version: "A_2"}, {Name: "third", Version: "A_1"},
	}
	b := elfgen.Library("libb.so.1") // has no versions, so each will do
	b.Symbols = []elfgen.Symbol{{Name: "plain"}}
	libs, err := elfdep.Closure([]string{"/app"}, elfdep.Options{Root: elfgen.WriteTree(t, map[string]any{"app": app, "lib/liba.so.1": a, "lib/libb.so.1": b})})
	if err != nil {
		t.Fatal(err)
	}
	got, err := elfdep.Unresolved(libs)
	want := []elfdep.Undefined{
		{Symbol: elfdep.Symbol{Name: "gone"}, In: "app"},
		{Symbol: elfdep.Symbol{Name: "second", Version: "A_1"}, In: "app"},
		{Symbol: elfdep.Symbol{Name: "third", Version: "A_2"}, In: "app"},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	text := (&elfdep.UnresolvedError{Symbols: got}).Error()
	for _, part := range []string{"gone (needed by app)", "second@A_1 (needed by app)"} {
		if !strings.Contains(text, part) {
			t.Errorf("the error does not say %q: %s", part, text)
		}
	}
	many := (&elfdep.UnresolvedError{Symbols: make([]elfdep.Undefined, 25)}).Error()
	if !strings.HasSuffix(many, "and 5 more") {
		t.Errorf("25 symbols: %s", many)
	}
}

func TestTakenFrom(t *testing.T) {
	user := elfgen.Library("user.so", "libv.so.1")
	user.Wants = []elfgen.Versions{{Library: "libv.so.1", Names: []string{"V_1"}}, {Library: "libc.so.6", Names: []string{"C_1"}}}
	user.Symbols = []elfgen.Symbol{
		{Name: "zeta", Undefined: true, Version: "V_1"},
		{Name: "alpha", Undefined: true, Version: "V_1"},
		{Name: "shared", Undefined: true, Version: "C_1"}, // libv has one too, in another version
		{Name: "weak", Undefined: true, Weak: true, Version: "V_1"},
		{Name: "mine"},
	}
	v := elfgen.Library("libv.so.1")
	v.Defines = []string{"V_1"}
	for _, n := range []string{"alpha", "zeta", "shared", "weak", "unused", "mine"} {
		v.Symbols = append(v.Symbols, elfgen.Symbol{Name: n, Version: "V_1"})
	}
	dir := elfgen.WriteTree(t, map[string]any{"user.so": user, "libv.so.1": v})
	got, err := elfdep.ImportsFrom(filepath.Join(dir, "user.so"), filepath.Join(dir, "libv.so.1"))
	want := []elfdep.Symbol{{Name: "alpha", Version: "V_1"}, {Name: "weak", Version: "V_1"}, {Name: "zeta", Version: "V_1"}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
}
