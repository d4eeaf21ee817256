package apt

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/packaging/debgen"
)

func TestParseRelease(t *testing.T) {
	t.Parallel()
	whole := "Suite: stable\nDate: Fri, 20 Nov 2026 12:00:00 UTC\nValid-Until: Thu, 18 Feb 2027 12:00:00 UTC\nSHA256:\n " + strings.Repeat("a", 64) + " 12 main/Packages\n"
	r, err := parseRelease([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := r.file("main/Packages"); !ok || f.size != 12 || r.suite != "stable" || r.date.Unix() != 1795176000 {
		t.Errorf("got %+v", r)
	}
	for old, bad := range map[string]string{
		"Fri, 20 Nov": "20 Nov", "Valid-Until: Thu": "Valid-Until: Someday", " 12 ": " -1 ", "main/Packages": "../Packages",
		strings.Repeat("a", 64): strings.Repeat("A", 64), "SHA256": "SHA1", "\nSHA256": "\n\nSHA256",
	} {
		if _, err := parseRelease([]byte(strings.Replace(whole, old, bad, 1))); err == nil {
			t.Errorf("%q for %q was accepted", bad, old)
		}
	}
}

func TestParseContents(t *testing.T) {
	t.Parallel()
	c, err := parseContents(strings.NewReader("usr/a b x/p,y/q\nusr/c p\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents{"usr/a b": {"x/p", "y/q"}, "usr/c": {"p"}}, c); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"usr\n", " p\n", "usr \n", "usr a,,b\n", "\n"} {
		if _, err := parseContents(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseDeb(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		b, err := debgen.Package{Control: debgen.Control("thing", "1:2-3"), Compression: suffix, Files: map[string]string{"usr/b": "", "usr/a": "x"}}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d, err := parseDeb(t.Context(), bytes.NewReader(b))
		if err != nil {
			t.Errorf("%q: %v", suffix, err)
			continue
		}
		if diff := cmp.Diff([]string{"usr/a", "usr/b"}, d.paths); diff != "" || poolPath(d.control) != "pool/main/t/thing/thing_2-3_amd64.deb" {
			t.Errorf("%q: %s %s", suffix, poolPath(d.control), diff)
		}
	}
	for change, want := range map[[2]string]string{
		{"Package: thing", "Package: ../thing"}:        `invalid Package "../thing"`,
		{"Version: 1-1", "Version: 1/1"}:               `invalid Version "1/1"`,
		{"Version: 1-1\n", ""}:                         "no Version",
		{"Architecture: amd64", "Architecture: arm64"}: "the package is for arm64",
		{"Section: misc", "Filename: pool/x"}:          "only indexes may have",
		{"Section: misc\n", "\nSection: misc\n"}:       "2 paragraphs",
	} {
		control := strings.Replace(debgen.Control("thing", "1-1"), change[0], change[1], 1)
		b, err := debgen.Package{Control: control}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseDeb(t.Context(), bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error about %q", change[1], err, want)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add([]byte("Suite: stable\nDate: Fri, 20 Nov 2026 12:00:00 UTC\nValid-Until: Thu, 18 Feb 2027 12:00:00 UTC\nSHA256:\n " + strings.Repeat("a", 64) + " 12 main/Packages\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRelease(text)
		if err != nil {
			return
		}
		second, err := parseRelease(r.format())
		if err != nil {
			t.Fatalf("%v in %s", err, r.format())
		}
		if diff := cmp.Diff(r, second, cmp.AllowUnexported(release{}, listed{})); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseContents(f *testing.F) {
	f.Add("usr/a b x/p,y/q\nusr/c p\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseContents(strings.NewReader(text))
		if err != nil {
			return
		}
		second, err := parseContents(bytes.NewReader(c.format()))
		if err != nil {
			t.Fatalf("%v in %q", err, c.format())
		}
		if diff := cmp.Diff(c, second); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseDeb(f *testing.F) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		b, err := debgen.Package{Control: debgen.Control("thing", "1-1"), Compression: suffix, Files: map[string]string{"a": "b"}}.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDeb(t.Context(), bytes.NewReader(b))
		if err != nil {
			return
		}
		if place := poolPath(d.control); !strings.HasPrefix(place, "pool/main/") || strings.Contains(place, "..") && strings.Contains(place, "/../") {
			t.Errorf("path outside the pool: %q", place)
		}
	})
}
