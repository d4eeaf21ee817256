package extract

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func TestFault11_NoExec(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, true)
		torture.Rounds(t, func(t *testing.T) {
			mnt := mountTmpfs(t, unix.MS_NOEXEC, "size=64m")
			_, err := Extract(context.Background(), b.Reader, Options{CacheDir: filepath.Join(mnt, "cache")})
			if !errors.Is(err, ErrNoExec) || !strings.Contains(err.Error(), CacheEnv) {
				t.Errorf("got %v, want ErrNoExec", err)
			}
			mustBeTidy(t, filepath.Join(mnt, "cache"))

			// Without a directory chosen by the user, the next one is tried.
			home := t.TempDir()
			for k, v := range map[string]string{CacheEnv: "", "CACHE_DIRECTORY": "", "XDG_CACHE_HOME": mnt, "HOME": home, "XDG_DATA_HOME": ""} {
				t.Setenv(k, v)
			}
			inst := mustExtract(t, b, Options{})
			if !strings.HasPrefix(inst.Dir, home) {
				t.Errorf("installed in %s, want it in %s", inst.Dir, home)
			}
			startServer(t, inst).stopServer()

			// A later remount with noexec is detected for an installed bundle too.
			remount(t, mnt, 0)
			o := Options{CacheDir: filepath.Join(mnt, "cache")}
			mustExtract(t, b, o)
			remount(t, mnt, unix.MS_NOEXEC)
			if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrNoExec) {
				t.Errorf("after a remount: %v", err)
			}
		})
	})
}

func TestFault12_ReadOnlyCache(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, true)
		torture.Rounds(t, func(t *testing.T) {
			mnt := mountTmpfs(t, 0, "size=64m")
			o := Options{CacheDir: filepath.Join(mnt, "cache")}
			readOnly := func(on bool) {
				var flags uintptr
				if on {
					flags = unix.MS_RDONLY
				}
				remount(t, mnt, flags)
			}
			mustFail := func(when string) {
				t.Helper()
				_, err := Extract(context.Background(), b.Reader, o)
				if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), CacheEnv) {
					t.Errorf("%s: got %v, want ErrReadOnly", when, err)
				}
			}
			readOnly(true)
			mustFail("empty and read-only")
			readOnly(false)
			inst := mustExtract(t, b, o)

			readOnly(true) // the installed bundle is used
			mustBeFast(t, b, o)
			startServer(t, inst).stopServer()

			readOnly(false)
			remove(t, inst.Dir+".stamp")
			remove(t, inst.Dir+".lock")
			readOnly(true) // undamaged, but without a stamp
			mustRehash(t, b, o)

			readOnly(false)
			flip(t, filepath.Join(inst.Dir, "libcore.so"), 1)
			readOnly(true)
			mustFail("damaged and read-only")
			readOnly(false)
			mustExtract(t, b, o)
		})
	})
}

// The user has no passwd entry and an empty environment, as in a container with a random
// user id.
func TestFault17_NoHome(t *testing.T) {
	b := newBundle(t, false)
	const user = 424242
	strip := func(c *exec.Cmd) {
		c.Env = []string{childEnv + "=plain", packEnv + "=" + b.file}
	}
	as := func(t *testing.T) func(*exec.Cmd) {
		t.Helper()
		if os.Geteuid() == 0 {
			return asUser(t, b, user)
		}
		return func(c *exec.Cmd) {
			c.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Geteuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getegid(), Size: 1}},
			}
		}
	}
	torture.Rounds(t, func(t *testing.T) {
		out := startChild(t, "plain", b, "", strip, as(t)).failed()
		if !strings.Contains(out, ErrNoCache.Error()) || !strings.Contains(out, CacheEnv) || !strings.Contains(out, "424242") {
			t.Errorf("the error does not name a remedy: %s", out)
		}
		// systemd sets a cache directory for a service without a home directory.
		dir := t.TempDir()
		if os.Geteuid() == 0 {
			dir = filepath.Join("/var/tmp", filepath.Base(filepath.Dir(dir)))
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, user, user)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { removeAll(t, dir) })
		}
		startChild(t, "plain", b, "", strip, as(t), withEnv("CACHE_DIRECTORY="+dir)).succeeded()
		mustBeTidy(t, filepath.Join(dir, "go-rocm"))
	})
}

// In a read-only store the lock is released, and a cancellation is not reported as
// ErrReadOnly.
func TestFault12_ReleasesLock(t *testing.T) {
	b := newBundle(t, false)
	s, err := openStore(location{cacheDir(t), "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	s.readOnly = true
	j := &job{store: s, r: b.Reader, m: b.Manifest(), digest: b.Digest(), o: Options{Log: slog.New(slog.DiscardHandler), trace: func(string) {}}}
	var held *lock
	if _, err := j.verifyAndRepair(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("got %v, want ErrReadOnly", err)
	}
	if held, err = s.tryLock(j.digest); err != nil || held == nil {
		t.Fatalf("the lock was not released: %v", err)
	}
	gone := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	for _, readOnly := range []bool{true, false} {
		s.readOnly = readOnly
		if _, err := j.verifyAndRepair(ctx); !errors.Is(err, gone) || errors.Is(err, ErrReadOnly) {
			t.Errorf("read-only %v: got %v, want the cause of the cancellation", readOnly, err)
		}
	}
	held.release()
	s.readOnly = true
	if _, err := j.verifyAndRepair(ctx); !errors.Is(err, gone) || errors.Is(err, ErrReadOnly) {
		t.Errorf("got %v, want the cause of the cancellation", err)
	}
}
