package ci

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFuzzFindsEveryFuzzTest(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	fuzzer := func(name, body string) string {
		return "func " + name + "(f *testing.F) {\n\tf.Add(\"x\")\n\tf.Fuzz(func(t *testing.T, s string) {\n" + body + "\n\t})\n}\n"
	}
	const head = "package p\n\nimport \"testing\"\n\n"
	p := writeModule(t, map[string]string{
		"a/a_test.go":      head + fuzzer("FuzzOne", "_ = s") + "\nfunc Fuzzy(f *testing.F) {}\n",
		"a/x_test.go":      "package p_test\n\nimport . \"testing\"\n\nfunc FuzzDot(f *F) { f.Fuzz(func(*T, string) {}) }\n",
		"a/tagged_test.go": "//go:build windows\n\n" + head + fuzzer("FuzzElsewhere", ""),
		"b/c/b_test.go":    strings.Replace(head, "\"testing\"", "(\n\"os\"\n\"testing\"\n)", 1) + fuzzer("FuzzTwo", "if s == \"x\" { t.Error(\"found one\") }") + fuzzer("FuzzThree", "if _, err := os.Stat(\"b_test.go\"); err != nil { t.Error(err) }"),
		"d/plain_test.go":  "package d\n\nimport \"testing\"\n\nfunc TestNothing(*testing.T) {}\n",
		"e/e_test.go":      head + fuzzer("FuzzFour", "undefined()"),
	})
	packages, err := p.fuzzPackages(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, pkg := range packages {
		found[pkg.ImportPath] = pkg.targets
	}
	want := map[string][]string{"example.test/m/a": {"FuzzDot", "FuzzOne"}, "example.test/m/b/c": {"FuzzThree", "FuzzTwo"}, "example.test/m/e": {"FuzzFour"}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Fatalf("targets (-want +got):\n%s", diff)
	}
	p.FuzzRuns = 500
	var out strings.Builder
	count, err := p.fuzz(t.Context(), &out)
	if count != (Count{Passed: 3, Failed: 1}) || err == nil || !strings.Contains(err.Error(), "example.test/m/b/c FuzzTwo") ||
		!strings.Contains(err.Error(), "compile the fuzz tests of example.test/m/e") || !strings.Contains(out.String(), "undefined: undefined") {
		t.Errorf("count %v, error %v\n%s", count, err, &out)
	}
}
