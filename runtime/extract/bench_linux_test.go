package extract

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// benchPack returns the pack of a real bundle from GOROCM_BENCH_PACK, else the small test
// bundle.
func benchPack(b *testing.B) (*bundle.Reader, string) {
	b.Helper()
	file := os.Getenv("GOROCM_BENCH_PACK")
	if file == "" {
		tb := newBundle(b, false)
		return tb.Reader, tb.file
	}
	p, err := bundle.OpenFile(file)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p.Reader, file
}

// BenchmarkCheckFast measures the check of an installed bundle at each start.
func BenchmarkCheckFast(b *testing.B) {
	r, _ := benchPack(b)
	o := Options{CacheDir: cacheDir(b)}
	inst, err := Extract(context.Background(), r, o)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(inst.Manifest.Files)), "files")
	b.ReportAllocs()
	for b.Loop() {
		if inst, err := Extract(context.Background(), r, o); err != nil || inst.Changed {
			b.Fatal(inst, err)
		}
	}
}

// BenchmarkOpen measures reading the index and the manifest of a pack, as at each start
// from the embedded bundle.
func BenchmarkOpen(b *testing.B) {
	_, file := benchPack(b)
	b.ReportAllocs()
	for b.Loop() {
		p, err := bundle.OpenFile(file)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInstall measures an installation into an empty cache, including syncs.
func BenchmarkInstall(b *testing.B) {
	r, _ := benchPack(b)
	base := b.TempDir()
	b.SetBytes(r.Manifest().Size())
	for b.Loop() {
		if _, err := Extract(context.Background(), r, Options{CacheDir: filepath.Join(base, "cache")}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(filepath.Join(base, "cache")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkInstallPeer measures `zstd -dc | tar x` of the same pack, without and with
// syncing the files.
func BenchmarkInstallPeer(b *testing.B) {
	r, file := benchPack(b)
	for name, script := range map[string]string{
		"tar":      `zstd -dcq "$1" | tar xp -C "$2"`,
		"tar+sync": `zstd -dcq "$1" | tar xp -C "$2" && find "$2" -exec sync {} +`,
	} {
		b.Run(name, func(b *testing.B) {
			base := b.TempDir()
			b.SetBytes(r.Manifest().Size())
			for b.Loop() {
				out := filepath.Join(base, "out")
				if err := os.Mkdir(out, 0o700); err != nil {
					b.Fatal(err)
				}
				if msg, err := exec.CommandContext(b.Context(), "sh", "-c", script, "sh", file, out).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, msg)
				}
				b.StopTimer()
				if err := os.RemoveAll(out); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
