package extract

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// While a program is being written this process cannot fork; while any other file is
// written, it can.
func TestFault15_NoForkWhileWriting(t *testing.T) {
	j := &job{m: &bundle.Manifest{Entry: bundle.Entry{Loader: "ld.so.2", Program: programName}}}
	for _, c := range []struct {
		path string
		mode uint32
		held bool
	}{
		{"ld.so.2", 0o755, true}, // although its name looks like a library
		{programName, 0o755, true},
		{"llama-cli", 0o755, true},
		{"libcore.so", 0o755, false},
		{"libcore.so.1", 0o644, false},
		{"rocblas/library/a_gfx1100.co", 0o644, false},
	} {
		release := j.guard(bundle.File{Path: c.path, Mode: c.mode})
		if canFork() == c.held {
			t.Errorf("%s: can fork: %v, want %v", c.path, c.held, !c.held)
		}
		release()
		if !canFork() {
			t.Errorf("%s: cannot fork after the file was written", c.path)
		}
	}
}

// canFork reports whether this process can fork now.
func canFork() bool {
	if !syscall.ForkLock.TryLock() {
		return false
	}
	syscall.ForkLock.Unlock()
	return true
}

// While the stage is filled, descriptors are reserved for its removal. After the
// installation none are left open.
func TestFault16_ReservesDescriptors(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t)}
	store := filepath.Join(o.CacheDir, bundlesName)
	staged := false
	o.trace = func(s string) {
		if s != "staged" {
			return
		}
		staged = true
		if n := opened(t, store); n < spareDescriptors {
			t.Errorf("%d descriptors of the store, want at least %d", n, spareDescriptors)
		}
	}
	mustExtract(t, b, o)
	if n := opened(t, store); n != 0 || !staged {
		t.Errorf("%d descriptors of the store are left (a stage was filled: %v)", n, staged)
	}
}

// opened counts this process's descriptors for the file at path.
func opened(t *testing.T, path string) int {
	t.Helper()
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && to == path {
			n++
		}
	}
	return n
}
