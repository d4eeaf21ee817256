package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun measures a little and holds the form of what is written.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	table, plot := filepath.Join(dir, "t.md"), filepath.Join(dir, "p.svg")
	if err := run([]string{"-tokens", "20", "-rounds", "2", "-streams", "1", "-table", table, "-plot", plot}, io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(table)
	if err != nil || strings.Count(string(b), "\n|") != 9 || !strings.Contains(string(b), "**go-rocm, TCP**") {
		t.Errorf("table, %v:\n%s", err, b)
	}
	f, err := os.Open(plot)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	bars := 0
	for d := xml.NewDecoder(f); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 8 {
		t.Errorf("%d rectangles, want the ground and seven bars", bars)
	}
}

func TestMistakes(t *testing.T) {
	for _, argv := range [][]string{{"-rounds", "0"}, {"-nope"}, {"-tokens", "1", "-rounds", "1", "-streams", "1", "-table", "/nowhere/x/y.md"}} {
		if err := run(argv, io.Discard); err == nil {
			t.Errorf("%v is accepted", argv)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("odd: %v", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("even: %v", got)
	}
}
