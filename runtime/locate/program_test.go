//go:build linux && amd64

package locate_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
)

// cache uses a directory of the test as the cache.
func cache(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	t.Setenv("GOROCM_CACHE", dir)
	return dir
}

// What is unpacked stays until the program is closed.
func TestUnpackLeasesTheDirectory(t *testing.T) {
	dir := cache(t)
	b := find(t, packed(t, server))
	var done, total int64
	p, err := b.Unpack(t.Context(), locate.UnpackOptions{
		Targets: []gfx.Target{gfx.GFX1101}, Progress: func(d, n int64) { done, total = d, n },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p.Dir, dir) || !slices.Equal(p.Targets, []gfx.Target{gfx.GFX1101}) || !slices.Equal(p.Argv, []string{filepath.Join(p.Dir, "llama-server")}) {
		t.Errorf("%+v", p)
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "k_gfx1100.co")); !os.IsNotExist(err) {
		t.Errorf("the file of another target: %v", err)
	}
	if files := p.LeaseFiles(); len(files) != 1 {
		t.Errorf("%d files for the child to inherit, want 1", len(files))
	}
	for _, want := range []int{0, 1} {
		removed, err := extract.Prune(t.Context(), extract.PruneOptions{CacheDir: dir})
		if err != nil || len(removed) != want {
			t.Errorf("removed %+v, %v; want %d", removed, err, want)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A directory is used where it is, and nothing is locked.
func TestUnpackOfADirectory(t *testing.T) {
	cache(t)
	withLoader, plain := t.TempDir(), t.TempDir()
	write(t, plain, map[string]string{"llama-server": server})
	write(t, withLoader, map[string]string{"llama-server": server, "ld-linux-x86-64.so.2": ""})
	bundle := bundleDir(t, server)
	for dir, argv := range map[string][]string{
		plain:      {filepath.Join(plain, "llama-server")},
		withLoader: {filepath.Join(withLoader, "ld-linux-x86-64.so.2"), "--library-path", withLoader, filepath.Join(withLoader, "llama-server")},
		bundle:     {filepath.Join(bundle, "llama-server")},
	} {
		p, err := find(t, dir).Unpack(t.Context(), locate.UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Dir != dir || !slices.Equal(p.Argv, argv) || p.LeaseFiles() != nil {
			t.Errorf("%+v, want %q in %s", p, argv, dir)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(bundle, "llama-server")); err != nil {
		t.Fatal(err)
	}
	b := find(t, bundle) // can still be verified
	if _, err := b.Unpack(t.Context(), locate.UnpackOptions{}); err == nil || !strings.Contains(err.Error(), "llama-server") {
		t.Errorf("a directory without its program: %v", err)
	}
}

// The flags of a program are read once for each content.
func TestFlagsAreCached(t *testing.T) {
	cache(t)
	counter := filepath.Join(t.TempDir(), "runs")
	b := find(t, packed(t, server+"echo run >>"+counter+"\n"))
	runs := func() int {
		text, err := os.ReadFile(counter)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "run\n")
	}
	for range 3 {
		p, err := b.Unpack(t.Context(), locate.UnpackOptions{Targets: []gfx.Target{}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.Flags(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !f.TakesValue["--model"] || !f.Has("--embeddings") || f.TakesValue["--embeddings"] || runs() != 1 {
			t.Errorf("flags %v after %d runs", f.TakesValue, runs())
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	for n := range 2 { // runs the program each time
		r, err := b.Probe(t.Context(), nil)
		if err != nil || r.Flags != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		if got := runs(); got != n+2 {
			t.Errorf("the program ran %d times, want %d", got, n+2)
		}
	}
}

func TestProbeReportsAProgramThatFails(t *testing.T) {
	cache(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"llama-server": "#!/bin/sh\necho 'error while loading shared libraries: libx.so.1' >&2\nexit 127\n"})
	if r, err := find(t, dir).Probe(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "libx.so.1") {
		t.Errorf("%+v, %v; want the program's own words", r, err)
	}
}
