package ci

import (
	"fmt"
	"strings"
	"testing"
)

// The first section is written as it grows; the others follow whole, in order of start.
func TestConsoleKeepsSectionsWhole(t *testing.T) {
	var out strings.Builder
	c := &console{out: &out}
	a := c.open("a")
	fmt.Fprint(a, "a1\na2")
	b := c.open("b")
	fmt.Fprint(b, "b1")
	if want := "a\na1\na2\nb runs beside this; its output follows\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	d := c.open("d")
	fmt.Fprint(d, "d1\n")
	d.close()
	e := c.open("e")
	fmt.Fprint(a, "a3\n")
	out.Reset()
	a.close()
	if want := "b\nb1"; out.String() != want {
		t.Errorf("after a: %q, want %q", &out, want)
	}
	fmt.Fprint(b, " b2")
	fmt.Fprint(e, "e1\n")
	b.close()
	if want := "b\nb1 b2\nd\nd1\ne\ne1\n"; out.String() != want {
		t.Errorf("after b: %q, want %q", &out, want)
	}
	fmt.Fprint(e, "e2\n")
	e.close()
	if !strings.HasSuffix(out.String(), "e1\ne2\n") {
		t.Errorf("after e: %q", &out)
	}
	if _, err := fmt.Fprint(e, "late"); err == nil {
		t.Error("a closed section accepts output")
	}
	f := c.open("f")
	f.close()
	if !strings.HasSuffix(out.String(), "e2\nf\n") {
		t.Errorf("after f: %q", &out)
	}
}
