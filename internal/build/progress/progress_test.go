package progress

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStatusEstimatesTheRemainingTime(t *testing.T) {
	for _, tc := range []struct {
		m    meter
		took time.Duration
		want string
	}{
		{meter{step: "compile", done: 40, total: 160}, 2 * time.Minute, "compile: 40 of 160, 2m0s, about 6m0s left"},
		{meter{step: "compile", done: 160, total: 160}, time.Minute, "compile: 160 of 160, 1m0s"},
		{meter{step: "import", bytes: true, done: 5_250_000, total: -1}, time.Second, "import: 5.2 MB, 1s"},
	} {
		if got := tc.m.status(tc.took); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestOpenWritesTheLogAndCounts(t *testing.T) {
	for _, isTerm := range []bool{false, true} {
		var out bytes.Buffer
		d := &Display{out: &out, dir: filepath.Join(t.TempDir(), "logs"), isTerm: isTerm}
		w, err := d.Open("step")
		if err != nil {
			t.Fatal(err)
		}
		output := "configure\n[1/3] a\n[2/3] b\nwarning: [9/9]\n[3/3] c"
		for _, chunk := range []string{output[:13], output[13:20], output[20:], "\n"} {
			if _, err := io.WriteString(w, chunk); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(d.dir, "step.log")); err != nil || string(got) != output+"\n" {
			t.Errorf("log: %q, %v", got, err)
		}
		want := "step: 3 of 3"
		if isTerm {
			want = "3/3"
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("terminal %v: %q is not in %q", isTerm, want, out.String())
		}
	}
}

func TestReaderCountsBytes(t *testing.T) {
	var out bytes.Buffer
	d := &Display{out: &out}
	r := d.Reader("import", -1, strings.NewReader(strings.Repeat("x", 3_000_000)))
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "import: 3.0 MB, ") {
		t.Errorf("got %q", got)
	}
}

// While a compile has the bar, an import has lines; it gets the bar when the compile ends.
func TestOneStepHasTheBar(t *testing.T) {
	var out bytes.Buffer
	d := &Display{out: &out, dir: t.TempDir(), isTerm: true}
	compile, err := d.Open("compile")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(compile, "[1/2] a\n"); err != nil {
		t.Fatal(err)
	}
	first := d.Reader("first import", -1, strings.NewReader(strings.Repeat("x", 2_000_000)))
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "first import: 2.0 MB, ") {
		t.Errorf("no line of the import beside the bar: %q", got)
	}
	if err := compile.Close(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	second := d.Reader("second import", 2_000_000, strings.NewReader(strings.Repeat("x", 2_000_000)))
	if _, err := io.Copy(io.Discard, second); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "second import: 2.0 MB") || !strings.Contains(got, "second import") {
		t.Errorf("the second import has no bar: %q", got)
	}
}
