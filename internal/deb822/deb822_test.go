package deb822

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const paragraphs = "Package: a\nDescription: one\n two\n .\n\tthree\nEmpty:\n\n\n\nPackage: b\nSHA256:\n 00 1 x\n"

func TestParse(t *testing.T) {
	t.Parallel()
	ps, err := Parse(strings.NewReader(paragraphs))
	if err != nil || len(ps) != 2 {
		t.Fatalf("got %v, %v", ps, err)
	}
	want := map[string]string{"package": "a", "Description": "one\n two\n .\n\tthree", "Empty": "", "none": ""}
	for name, value := range want {
		if got := ps[0].Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if diff := cmp.Diff("Package: b\nSHA256:\n 00 1 x\n", ps[1].String()); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		" x: y\n":                            "line 1 is a continuation line without a field",
		"a: b\n\n c\n":                       "line 3 is a continuation line without a field",
		"nothing\n":                          "line 1 has no field name",
		": x\n":                              "line 1 has no field name",
		"a b: x\n":                           "line 1 has no field name",
		"# x: y\n":                           "line 1 has no field name",
		"A: 1\nb: 2\na: 3\n":                 "line 3: duplicate field a",
		"a: " + strings.Repeat("x", maxLine): "too long",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want an error about %q", text, err, want)
		}
	}
}

// Formatting and parsing again returns the same paragraphs.
func FuzzParse(f *testing.F) {
	f.Add(paragraphs)
	f.Add("a:b\n")
	f.Add("Package: a\nVersion: 1\nArchitecture: all\n")
	f.Fuzz(func(t *testing.T, text string) {
		ps, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		var formatted []string
		for _, p := range ps {
			formatted = append(formatted, p.String())
		}
		second, err := Parse(strings.NewReader(strings.Join(formatted, "\n")))
		if err != nil {
			t.Fatalf("%v in %q", err, formatted)
		}
		if diff := cmp.Diff(ps, second); diff != "" {
			t.Error(diff)
		}
	})
}
