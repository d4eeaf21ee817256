package gguf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// opened lists the files below dir that this process has open.
func opened(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("%d descriptors, %v", len(links), err)
	}
	var out []string
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir+"/") { // the file may just have been closed
			out = append(out, filepath.Base(to))
		}
	}
	return out
}

// TestSplitKeepsOneFileOpen checks that a model with many parts keeps one file open: it may
// have as many parts as a process may have descriptors.
func TestSplitKeepsOneFileOpen(t *testing.T) {
	dir := t.TempDir()
	first := ""
	for i := range uint32(3) {
		p := store(t, dir, fmt.Sprintf("m-%05d-of-00003.gguf", i+1), part(i, 3, 3, fmt.Sprintf("t%d", i)).b)
		if i == 0 {
			first = p
		}
	}
	f, err := gguf.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := opened(t, dir); len(got) != 1 || got[0] != filepath.Base(first) {
		t.Errorf("open: %v", got)
	}
	for range 2 { // a second Close has no effect
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	// A part that does not belong to the model is closed as well.
	store(t, dir, "m-00003-of-00003.gguf", part(2, 3, 3, "t1").b)
	if _, err := gguf.Open(first); err == nil {
		t.Error("a tensor in two parts was taken")
	}
	if got := opened(t, dir); len(got) != 0 {
		t.Errorf("open after an error: %v", got)
	}
}
