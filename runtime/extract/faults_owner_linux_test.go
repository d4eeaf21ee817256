package extract

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// The test plants symbolic links, directories and files in the cache and the bundle.
// Nothing outside may be read or written, and no link followed.
func TestFault13_PlantedFiles(t *testing.T) {
	b := newBundle(t, false)
	digest := b.Digest()
	torture.Rounds(t, func(t *testing.T) {
		outside := t.TempDir()
		secret := filepath.Join(outside, "secret")
		if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run("instead of the cache", func(t *testing.T) {
			for _, at := range []string{"cache", filepath.Join("cache", bundlesName)} {
				base := t.TempDir()
				mkdirs(t, filepath.Dir(filepath.Join(base, at)))
				symlink(t, outside, filepath.Join(base, at))
				if _, err := Extract(context.Background(), b.Reader, Options{CacheDir: filepath.Join(base, "cache")}); !errors.Is(err, ErrUnsafe) {
					t.Errorf("a link at %s: %v", at, err)
				}
			}
			base := t.TempDir()
			if err := os.WriteFile(filepath.Join(base, "cache"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Extract(context.Background(), b.Reader, Options{CacheDir: filepath.Join(base, "cache")}); !errors.Is(err, ErrUnsafe) {
				t.Errorf("a file instead of the cache: %v", err)
			}
		})
		t.Run("before an install", func(t *testing.T) {
			for _, name := range []string{digest, digest + ".stamp", digest + ".lock", digest + ".stamp.new", stagePrefix(digest) + "00"} {
				for kind, plant := range planters(outside, secret) {
					o := Options{CacheDir: cacheDir(t)}
					store := filepath.Join(o.CacheDir, bundlesName)
					mkdirs(t, store)
					plant(t, filepath.Join(store, name))
					mustExtract(t, b, o)
					if t.Failed() {
						t.Fatalf("with a %s at %s", kind, name)
					}
					mustBeTidy(t, o.CacheDir)
					mustBeFast(t, b, o)
				}
			}
		})
		t.Run("in an installed bundle", func(t *testing.T) {
			o := Options{CacheDir: cacheDir(t)}
			dir := mustExtract(t, b, o).Dir
			for _, name := range []string{"libcore.so", programName, "manifest.json", "rocblas", "rocblas/library", "libggml-evil.so", "rocblas/library/evil.co"} {
				for kind, plant := range planters(outside, secret) {
					if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
					plant(t, filepath.Join(dir, name))
					if inst := mustExtract(t, b, o); !inst.Changed {
						t.Errorf("a %s at %s was not found", kind, name)
					}
				}
			}
			mustBeTidy(t, o.CacheDir)
			mustBeFast(t, b, o)
		})
		if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
			t.Errorf("the file outside is %q, %v", got, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
			t.Errorf("outside the cache: %v, %v", left, err)
		}
	})
}

// planters returns functions that create something foreign at a path.
func planters(outside, secret string) map[string]func(t *testing.T, path string) {
	return map[string]func(t *testing.T, path string){
		"link to a directory": func(t *testing.T, p string) { t.Helper(); symlink(t, outside, p) },
		"link to a file":      func(t *testing.T, p string) { t.Helper(); symlink(t, secret, p) },
		"dangling link":       func(t *testing.T, p string) { t.Helper(); symlink(t, filepath.Join(outside, "new"), p) },
		"file": func(t *testing.T, p string) {
			t.Helper()
			if err := os.WriteFile(p, []byte("planted"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"directory": func(t *testing.T, p string) {
			t.Helper()
			mkdirs(t, filepath.Join(p, "deep", "er"))
		},
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func mkdirs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestFault14_WrongMode(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		dir := mustExtract(t, b, o).Dir
		// A directory that others can write to is not repaired: its content may be
		// theirs, now or later.
		for _, d := range []string{o.CacheDir, filepath.Dir(dir)} {
			for _, mode := range []os.FileMode{0o777, 0o770, 0o720} {
				chmod(t, d, mode)
				if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrUnsafe) {
					t.Errorf("%s with mode %o: %v", d, mode, err)
				}
			}
			chmod(t, d, 0o700)
		}
		mustBeFast(t, b, o)
		// A directory that others can read gets mode 0700.
		chmod(t, filepath.Dir(dir), 0o755)
		mustBeFast(t, b, o)
		if st, err := os.Stat(filepath.Dir(dir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("mode of the store: %v, %v", st.Mode(), err)
		}
		// Inside the private directory, modes are corrected.
		for path, mode := range map[string]os.FileMode{
			"": 0o777, "rocblas": 0o777, "rocblas/library": 0o500, programName: 0o644, loaderName: 0o4755, "libcore.so": 0o666, "manifest.json": 0o600,
		} {
			chmod(t, filepath.Join(dir, path), mode)
			inst := mustExtract(t, b, o)
			for _, d := range []string{"", "rocblas", "rocblas/library"} {
				if st, err := os.Stat(filepath.Join(dir, d)); err != nil || st.Mode().Perm() != 0o700 {
					t.Errorf("after %q had mode %o: %q has %v (%v)", path, mode, d, st.Mode(), err)
				}
			}
			startServer(t, inst).stopServer()
			mustBeFast(t, b, o)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	m := mode.Perm()
	if mode&0o4000 != 0 {
		m |= os.ModeSetuid
	}
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
}

func TestFault14_WrongOwner(t *testing.T) {
	requireMachineRoot(t)
	const other = 4242
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		dir := mustExtract(t, b, o).Dir
		for _, d := range []string{o.CacheDir, filepath.Dir(dir), dir} {
			chown(t, d, other)
			if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrUnsafe) {
				t.Errorf("%s of another user: %v", d, err)
			}
			chown(t, d, 0)
		}
		for _, path := range []string{programName, "libcore.so", "manifest.json", "rocblas", "rocblas/library/a_gfx1100.co"} {
			chown(t, filepath.Join(dir, path), other)
			if inst := mustExtract(t, b, o); !inst.Changed {
				t.Errorf("another user's %s was kept", path)
			}
			mustBeFast(t, b, o)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

func chown(t *testing.T, path string, uid int) {
	t.Helper()
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
}
