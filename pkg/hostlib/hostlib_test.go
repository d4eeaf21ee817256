package hostlib_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/hostlib"
)

func TestReviewed(t *testing.T) {
	table, err := hostlib.Reviewed()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []hostlib.Library{
		{"libamdhip64.so.6", true, "libamdhip64-6", "hip-runtime-amd"},
		{"libamdhip64.so.7", true, "libamdhip64-7", "hip-runtime-amd"},
		{"libhipblas.so.2", true, "libhipblas2", "hipblas"},
		{"librocblas.so.4", true, "librocblas4", "rocblas"},
		{"libhsa-runtime64.so.1", true, "libhsa-runtime64-1", "hsa-rocr"},
		{"libamd_comgr.so.3", true, "libamd-comgr3", "comgr"},
		{"libLLVM.so.21.1", false, "libllvm21", ""},
		{"libxml2.so.2", false, "libxml2", "libxml2"},
		{"libxml2.so.16", false, "libxml2-16", "libxml2-16"},
		{"libz.so.1", false, "zlib1g", "zlib1g"},
	} {
		if got, ok := table.Lookup(want.SONAME); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", want.SONAME, got, ok, want)
		}
	}
	for _, none := range []string{"", "libc.so.6", "libamdhip64.so", "libamdhip64.so.", "xlibamdhip64.so.6"} {
		if got, ok := table.Lookup(none); ok {
			t.Errorf("%q is known: %+v", none, got)
		}
	}
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"short":   {"rocm libx.so.* libx1", "line 1: want: rocm|other"},
		"kind":    {"# x\n\nhip libx.so.* libx* x", `line 3: "hip" is neither`},
		"no name": {"rocm .so.* libx* x", "neither a SONAME"},
		"inside":  {"rocm lib*.so.6 libx* x", "neither a SONAME"},
		"behind":  {"rocm libx.so.1* libx* x", "neither a SONAME"},
		"before":  {"rocm *.so.6 libx* x", "neither a SONAME"},
		"two":     {"rocm libx.so.** libx* x", "neither a SONAME"},
		"twice":   {"rocm libx.so.* a b\nother libx.so.* a b", "line 2: libx.so.* is listed twice"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := hostlib.Parse(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}

func TestStem(t *testing.T) {
	for in, want := range map[string]string{
		"libamdhip64.so.6": "libamdhip64.so.", "libLLVM.so.21.1": "libLLVM.so.", "libx.so": "", ".so.6": "", "": "",
	} {
		if got := hostlib.Stem(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestMatchesPackage(t *testing.T) {
	l := hostlib.Library{Debian: "libelf1"}
	for owner, want := range map[string]bool{"libelf1": true, "libelf1t64": true, "libelf": false, "": false, "libelf1x": false} {
		if l.MatchesPackage(owner) != want {
			t.Errorf("%q: %v", owner, !want)
		}
	}
	if (hostlib.Library{}).MatchesPackage("") {
		t.Error("a library without a package is held by one")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("rocm libx.so.* libx-* x", "libx.so.1.2")
	f.Add("other liby.so.* - -\n#\n", "liby.so.")
	f.Fuzz(func(t *testing.T, text, soname string) {
		table, err := hostlib.Parse(text)
		if err != nil {
			return
		}
		if l, ok := table.Lookup(soname); ok && (l.SONAME != soname || hostlib.Stem(soname) == "") {
			t.Errorf("%q of %q: %+v", soname, text, l)
		}
	})
}
