package extract

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// TestFault15NoForkWhileWritten: while a file that somebody will start is written
// this process cannot fork, and while any other is written it can.
func TestFault15NoForkWhileWritten(t *testing.T) {
	j := &job{m: &bundle.Manifest{Entry: bundle.Entry{Loader: "ld.so.2", Program: programName}}}
	for _, c := range []struct {
		path string
		mode uint32
		held bool
	}{
		{"ld.so.2", 0o755, true}, // though its name is a library's
		{programName, 0o755, true},
		{"llama-cli", 0o755, true},
		{"libcore.so", 0o755, false},
		{"libcore.so.1", 0o644, false},
		{"rocblas/library/a_gfx1100.co", 0o644, false},
	} {
		release := j.guard(bundle.File{Path: c.path, Mode: c.mode})
		if canFork() == c.held {
			t.Errorf("%s: it can fork: %v, want %v", c.path, c.held, !c.held)
		}
		release()
		if !canFork() {
			t.Errorf("%s: it cannot fork when the file is written", c.path)
		}
	}
}

// canFork reports whether nobody keeps this process from forking.
func canFork() bool {
	if !syscall.ForkLock.TryLock() {
		return false
	}
	syscall.ForkLock.Unlock()
	return true
}

// TestFault16DescriptorsAreKeptBack: while the stage is filled there are descriptors
// that its removal can have, and none when the bundle is installed.
func TestFault16DescriptorsAreKeptBack(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t)}
	store := filepath.Join(o.CacheDir, bundlesName)
	told := false
	o.trace = func(s string) {
		if s != "staged" {
			return
		}
		told = true
		if n := opened(t, store); n < spareDescriptors {
			t.Errorf("%d descriptors of the store, want %d to spare at least", n, spareDescriptors)
		}
	}
	mustExtract(t, b, o)
	if n := opened(t, store); n != 0 || !told {
		t.Errorf("%d descriptors of the store are left (a stage was filled: %v)", n, told)
	}
}

// opened counts this process's descriptors of the file at path.
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
