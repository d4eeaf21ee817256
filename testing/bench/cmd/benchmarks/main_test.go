package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

func run1(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	err := run(t.Context(), args, &out)
	return out.String(), err
}

// TestPageHasASectionForEachBenchmark compares the page with the list of benchmarks.
func TestPageHasASectionForEachBenchmark(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range benchmarks() {
		if !strings.Contains(string(b), "\n| `"+one.name+"` | ") {
			t.Errorf("the page does not explain %s", one.name)
		}
		if place := "<!-- begin " + one.name + " -->"; strings.Contains(string(b), place) == one.extra {
			t.Errorf("%s (extra %t): the page has a section for an extra benchmark, or none for another", one.name, one.extra)
		}
	}
}

// The settings of a build know the benchmarks by package benchpage.
func TestTableHasTheNamesOfThePage(t *testing.T) {
	var names []string
	for _, b := range benchmarks() {
		names = append(names, b.name)
	}
	if want := append(page.RunSide(), page.Go); !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

func TestChooseKeepsTheOrderOfTheTable(t *testing.T) {
	all, err := choose(nil)
	if err != nil || len(all) != len(benchmarks())-1 {
		t.Errorf("%d of %d, %v", len(all), len(benchmarks()), err)
	}
	some, err := choose([]string{"go", "tokens"})
	if err != nil || len(some) != 2 || some[0].name != "tokens" || some[1].name != "go" {
		t.Errorf("%v, %v", some, err)
	}
	for _, bad := range [][]string{{"nope"}, {"tokens", "tokens"}, {""}} {
		if _, err := choose(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestListPrintsEveryBenchmark(t *testing.T) {
	out, err := run1(t, "-list")
	if err != nil || strings.Count(out, "\n") != len(benchmarks()) {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestRunRejectsBadArguments(t *testing.T) {
	t.Setenv("GOROCM_TEST_MODELS", t.TempDir())
	t.Setenv("GOROCM_CACHE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	for _, args := range [][]string{
		{"-rounds", "-1"},
		{"-jobs", "0"},
		{"-nope"},
		{"tokens"},
		{"-only", "nope"},
		{"-only", "tokens", "-work", filepath.Join(t.TempDir(), "none")},
		{"-only", "pack", "-work", t.TempDir(), "-cpu", "none.tar.zst"},
	} {
		if _, err := run1(t, args...); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
