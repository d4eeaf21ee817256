package benchpage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func section() Section {
	return Section{
		Name: "packing", Title: "Packing", Text: []string{"Three rounds."},
		Head: []string{"", "ours", "peer"}, Rows: [][]string{{"a", "1.00", "2.00"}},
		Plot: "p.svg", PlotText: "bars",
		Goals: []Goal{
			{What: "packing", Got: 1.2, Limit: 1, Unit: "times"},
			{What: "tokens per second", Got: 0.9951, Limit: 0.99, AtLeast: true},
		},
	}
}

func TestMarkdown(t *testing.T) {
	got := section().Markdown(Machine{CPU: "Some CPU", Processors: 2, Memory: 23.4, Kernel: "6.1", Go: "go1.26", Load: 0.25})
	want := `## Packing

Three rounds.

|  | ours | peer |
|---|---:|---:|
| a | 1.00 | 2.00 |

![bars](p.svg)

Goals:

- **not met**: packing at most 1.00 times; measured 1.20 times
- met: tokens per second at least 99 %; measured 99.51 %

Measured on Some CPU, 2 processors, 23 GiB of memory, Linux 6.1, go1.26; load average before it 0.2.
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestWriteReplacesOneSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	const before = "# Benchmarks\n\n<!-- begin other -->\nkept\n<!-- end other -->\n<!-- begin packing -->\nold\n<!-- end packing -->\nfoot\n"
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time replaces the first
		if err := Write(file, section(), Machine{}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if strings.Contains(text, "old") || strings.Count(text, "## Packing") != 1 || !strings.Contains(text, "kept") || !strings.HasSuffix(text, "foot\n") {
		t.Errorf("the page is\n%s", text)
	}
	for _, broken := range []string{"no marks", "<!-- begin packing -->\n", "<!-- end packing -->\n<!-- begin packing -->\n"} {
		if err := os.WriteFile(file, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Write(file, section(), Machine{}); !errors.Is(err, ErrNoSection) {
			t.Errorf("%q: %v", broken, err)
		}
	}
	if err := Write(filepath.Join(t.TempDir(), "none.md"), section(), Machine{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing page: %v", err)
	}
}

func TestThisMachine(t *testing.T) {
	m, err := ThisMachine("/proc")
	if err != nil || m.Processors < 1 || m.Memory <= 0 || m.Kernel == "" || m.CPU == "" {
		t.Errorf("%+v, %v", m, err)
	}
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "sys", "kernel"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"cpuinfo": "processor\t: 0\nmodel name\t: Some   CPU\n", "meminfo": "MemTotal:       1048576 kB\n",
		"sys/kernel/osrelease": "6.1.0\n", "loadavg": "1.50 1.0 0.5 1/2 3\n",
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		write(name, text)
	}
	m, err = ThisMachine(proc)
	if err != nil || m.CPU != "Some CPU" || m.Memory != 1 || m.Kernel != "6.1.0" || m.Load != 1.5 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, name := range []string{"meminfo", "loadavg"} {
		write(name, "nothing of use")
		if _, err := ThisMachine(proc); err == nil {
			t.Errorf("a malformed %s is accepted", name)
		}
		write(name, files[name])
	}
	if _, err := ThisMachine(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestInterleave(t *testing.T) {
	var order []string
	variant := func(name string, v float64) Variant {
		return func(context.Context) (float64, error) { order = append(order, name); return v, nil }
	}
	got, err := Interleave(t.Context(), 3, variant("a", 1), variant("b", 2))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(order, "") != "abbaab" {
		t.Errorf("order %v", order)
	}
	if !slices.Equal(got[0], []float64{1, 1, 1}) || !slices.Equal(got[1], []float64{2, 2, 2}) {
		t.Errorf("samples %v", got)
	}
	if r, d := Ratios(got[0], got[1]), Differences(got[0], got[1]); Median(r) != 0.5 || Median(d) != -1 {
		t.Errorf("ratios %v, differences %v", r, d)
	}
	broken := errors.New("broken")
	if _, err := Interleave(t.Context(), 1, variant("a", 1), func(context.Context) (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Interleave(ctx, 1, variant("a", 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if v, err := Seconds(func(context.Context) error { return nil })(t.Context()); v < 0 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
}

func TestMedian(t *testing.T) {
	if got := Median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("odd: %v", got)
	}
	if got := Median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("even: %v", got)
	}
}

// The ranks are those of the tables of the sign test.
func TestConfidenceInterval(t *testing.T) {
	for _, c := range []struct{ n, low, high int }{{1, 1, 1}, {2, 1, 2}, {5, 1, 5}, {6, 1, 6}, {8, 1, 8}, {9, 2, 8}, {15, 4, 12}, {20, 6, 15}, {45, 16, 30}, {100, 40, 61}} {
		var samples []float64
		for i := range c.n {
			samples = append(samples, float64(c.n-i))
		}
		if low, high := ConfidenceInterval(samples); low != float64(c.low) || high != float64(c.high) {
			t.Errorf("%d samples: the %vth to the %vth, want %d and %d", c.n, low, high, c.low, c.high)
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{1234.5: "1234", 42.42: "42.4", 1.234: "1.23", 0.0456: "0.046", -12.34: "-12.3"} {
		if got := Figure(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
