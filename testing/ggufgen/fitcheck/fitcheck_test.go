package fitcheck_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

// program writes a script that replaces llama-fit-params.
func program(t *testing.T, script string) []string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "fit-params")
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{p, "--first"}
}

func TestRun(t *testing.T) {
	s := fitcheck.DeviceScenarios()[1]
	got, err := fitcheck.Ask(t.Context(), program(t, `echo "$@" >&2; echo "0.1 I printing"; echo "RPC0 4455 576 304 "; echo "Host 333 0 20"`), "/m.gguf", s)
	want := map[string]fitcheck.Figures{"device": {Weights: 4455, KV: 576, Compute: 304}, "host": {Weights: 333, Compute: 20}}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for script, want := range map[string]string{
		`echo "RPC0 1 2 3"`:                      "no line for the host",
		`echo "Host 1 2 3"`:                      "no line for a device",
		`echo loading >&2; echo bad >&2; exit 3`: "exit status 3: bad",
		`echo "Host 1 x 3"`:                      "no line for the host",
	} {
		if _, err := fitcheck.Ask(t.Context(), program(t, script), "/m.gguf", s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
	}
}

func TestRecord(t *testing.T) {
	k := ggufgen.Catalogue()[0]
	rows := []fitcheck.Row{
		{Model: k, Scenario: "a", Place: "host", Said: fitcheck.Figures{Weights: 1, KV: 2, Compute: 3}},
		{Model: k, Scenario: "a", Place: "device", Said: fitcheck.Figures{Weights: 4, KV: 5, Compute: 6}},
	}
	var b bytes.Buffer
	b.WriteString("# a comment\n")
	if err := fitcheck.Record(&b, rows); err != nil {
		t.Fatal(err)
	}
	got, err := fitcheck.Recorded(&b)
	want := map[string]map[string]fitcheck.Figures{k.ID() + " a": {"host": rows[0].Said, "device": rows[1].Said}}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"too few words", "m s host 1 2 x"} {
		if _, err := fitcheck.Recorded(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestDeviation checks that an exceeded limit is reported, and that the truncation to whole MiB is
// allowed for.
func TestDeviation(t *testing.T) {
	said := fitcheck.Figures{Weights: 1000, KV: 100, Compute: 50}
	for _, c := range []struct {
		expected fitcheck.Figures
		want     string
	}{
		{fitcheck.Figures{Weights: 1000.9, KV: 100.9, Compute: 50}, ""},
		{fitcheck.Figures{Weights: 1012, KV: 100, Compute: 50}, "weights"},
		{fitcheck.Figures{Weights: 1000, KV: 97.9, Compute: 50}, "kv"},
		{fitcheck.Figures{Weights: 1000, KV: 100, Compute: 115}, "total"},
	} {
		r := fitcheck.Row{Said: said, Expected: c.expected}
		if off := r.Off(); (off == "") != (c.want == "") || !strings.HasPrefix(off, c.want) {
			t.Errorf("%+v: %q, want %q", c.expected, off, c.want)
		}
	}
}
