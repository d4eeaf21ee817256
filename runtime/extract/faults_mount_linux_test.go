package extract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// powerCutAt installs the bundle on an ext4 file system in a process that stops at the
// step, simulates a power cut there, and returns the cache as it is after the next
// boot.
func powerCutAt(t *testing.T, b testBundle, step string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	newExt4(t, image, 24)
	// Commits are far apart, so that only synced data reaches the disk.
	cache := filepath.Join(mountImage(t, image, "commit=300,noauto_da_alloc"), "cache")
	c := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"="+step))
	c.waitStopped()
	after := filepath.Join(mountImage(t, powerCut(t, image), ""), "cache")
	c.signal(syscall.SIGKILL)
	c.killed()
	return after
}

// The power is cut before anything is synced, and during the sync.
func TestFault03_PowerCutBeforeSync(t *testing.T) {
	requireMachineRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		for _, step := range []string{"staged", "extracted", "synced"} {
			o := Options{CacheDir: powerCutAt(t, b, step)}
			if inst := mustExtract(t, b, o); !inst.Changed {
				t.Errorf("power cut at %q: the bundle existed before its rename", step)
			}
			mustBeTidy(t, o.CacheDir)
			mustBeFast(t, b, o)
		}
	})
}

// The power is cut when the bundle is renamed in memory but possibly not on disk: it
// must be undamaged or missing.
func TestFault04_PowerCutAfterRename(t *testing.T) {
	requireMachineRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: powerCutAt(t, b, "renamed")}
		mustExtract(t, b, o)
		mustBeTidy(t, o.CacheDir)
		mustBeFast(t, b, o)

		// From here on the bundle must survive unchanged.
		for _, step := range []string{"cache synced", "stamped"} {
			o := Options{CacheDir: powerCutAt(t, b, step)}
			if inst := mustExtract(t, b, o); inst.Changed {
				t.Errorf("power cut at %q: files had to be written again", step)
			}
			mustBeTidy(t, o.CacheDir)
			mustBeFast(t, b, o)
		}
	})
}

func TestFault05_DiskFull(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, false)
		torture.Rounds(t, func(t *testing.T) {
			// Detected before a byte is written.
			o := Options{CacheDir: filepath.Join(mountTmpfs(t, 0, "size=1m"), "cache")}
			mustRejectForSpace(t, b, o, "bytes")
			// Detected while writing: another program fills the disk.
			mnt := mountTmpfs(t, 0, "size=64m")
			o = Options{CacheDir: filepath.Join(mnt, "cache")}
			filler := filepath.Join(mnt, "filler")
			o.Progress = func(int64, int64) { fill(t, filler) }
			_, err := Extract(context.Background(), b.Reader, o)
			lacksSpace(t, err, o, "bytes")
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v does not wrap ENOSPC", err)
			}
			remove(t, filler)
			o.Progress = nil
			mustExtract(t, b, o)
			mustBeFast(t, b, o)
			// A repair must keep the installed files.
			dir := mustExtract(t, b, o).Dir
			flip(t, filepath.Join(dir, "libcore.so"), 3)
			fill(t, filler)
			mustLackSpace(t, b, o, "bytes")
			remove(t, filler)
			mustExtract(t, b, o)
			// An undamaged bundle is used, even without space for its stamp.
			remove(t, dir+".stamp")
			fill(t, filler)
			mustRehash(t, b, o)
			remove(t, filler)
			mustRehash(t, b, o)
			if _, err := os.Stat(dir + ".stamp"); err != nil {
				t.Errorf("with free space again it was not stamped: %v", err)
			}
		})
	})
}

func TestFault05_NoInodes(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, false)
		torture.Rounds(t, func(t *testing.T) {
			o := Options{CacheDir: filepath.Join(mountTmpfs(t, 0, "size=64m,nr_inodes=16"), "cache")}
			mustRejectForSpace(t, b, o, "inodes")
		})
	})
}

// Not even directories or locks can be created. An installed, undamaged bundle is still
// used.
func TestFault05_NoInodeLeft(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, false)
		torture.Rounds(t, func(t *testing.T) {
			for inodes := 1; inodes <= 6; inodes++ {
				mnt := mountTmpfs(t, 0, fmt.Sprintf("size=64m,nr_inodes=%d", inodes))
				mustLackSpace(t, b, Options{CacheDir: filepath.Join(mnt, "cache")}, "inodes")
			}
			mnt := mountTmpfs(t, 0, "size=64m,nr_inodes=100")
			o := Options{CacheDir: filepath.Join(mnt, "cache")}
			dir := mustExtract(t, b, o).Dir
			for _, name := range []string{".stamp", ".lock", ".use"} {
				remove(t, dir+name)
			}
			useUpInodes(t, filepath.Join(mnt, "filler"))
			mustRehash(t, b, o)
			flip(t, filepath.Join(dir, "libcore.so"), 3)
			mustLackSpace(t, b, o, "inodes")
			removeAll(t, filepath.Join(mnt, "filler"))
			mustExtract(t, b, o)
			mustBeFast(t, b, o)
		})
	})
}

// useUpInodes creates a directory and files in it until no inode is left.
func useUpInodes(t *testing.T, dir string) {
	t.Helper()
	mkdirs(t, dir)
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// mustLackSpace checks that Extract fails for lack of space.
func mustLackSpace(t *testing.T, b testBundle, o Options, what string) {
	t.Helper()
	_, err := Extract(context.Background(), b.Reader, o)
	lacksSpace(t, err, o, what)
}

// mustRejectForSpace checks that Extract fails for lack of space before it writes the
// first byte.
func mustRejectForSpace(t *testing.T, b testBundle, o Options, what string) {
	t.Helper()
	o.Progress = func(done, total int64) { t.Errorf("%d of %d bytes were written", done, total) }
	_, err := Extract(context.Background(), b.Reader, o)
	lacksSpace(t, err, o, what)
	var se *SpaceError
	if errors.As(err, &se) && se.Err != nil {
		t.Errorf("detected by a system error only: %v", err)
	}
}

// lacksSpace checks that the error has the required amount, and that nothing is left
// behind.
func lacksSpace(t *testing.T, err error, o Options, what string) {
	t.Helper()
	var se *SpaceError
	if !errors.As(err, &se) {
		t.Fatalf("got %v, want a SpaceError", err)
	}
	if se.Resource != what || se.Need <= 0 || se.Need <= se.Have && se.Err == nil || !strings.Contains(err.Error(), CacheEnv) {
		t.Errorf("error %q (%+v)", err, *se)
	}
	mustBeTidy(t, o.CacheDir)
}

// fill uses up the free space of the file system.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		t.Error(err)
		return
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Error(err)
			return
		}
	}
}

// The disk fails during the installation: the page cache still accepts writes, and
// fsync reports EIO.
func TestFault06_DiskError(t *testing.T) {
	requireMachineRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		// A sealed memory file rejects writes, and a loop device on it reports an
		// input/output error.
		fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		disk := os.NewFile(uintptr(fd), "disk")
		defer func() { _ = disk.Close() }()
		image := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
		newExt4(t, image, 48, "-O", "^has_journal")
		o := Options{CacheDir: filepath.Join(mountImage(t, image, "errors=continue"), "cache")}
		var once sync.Once
		o.Progress = func(int64, int64) {
			once.Do(func() {
				if _, err := unix.FcntlInt(disk.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
					t.Error(err)
				}
			})
		}
		_, err = Extract(context.Background(), b.Reader, o)
		if !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "dmesg") {
			t.Errorf("got %v, want a disk error", err)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

// The file system on a thin disk shows more free space than the storage has, and
// reports an error only at fsync.
func TestFault06_ThinDisk(t *testing.T) {
	requireMachineRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		image := filepath.Join(mountTmpfs(t, 0, "size=1m"), "disk.img")
		newExt4(t, image, 48, "-O", "^has_journal", "-N", "256")
		o := Options{CacheDir: filepath.Join(mountImage(t, image, "errors=continue"), "cache")}
		_, err := Extract(context.Background(), b.Reader, o)
		var se *SpaceError
		if !errors.As(err, &se) && !errors.Is(err, ErrDisk) {
			t.Errorf("got %v, want a SpaceError or a disk error", err)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

// The file system has free space, but the quota is exhausted: every write fails with
// EDQUOT.
func TestFault06_Quota(t *testing.T) {
	requireMachineRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		mnt := newBtrfs(t)
		share := filepath.Join(mnt, "share")
		runProgram(t, "btrfs-progs", "btrfs", "subvolume", "create", share)
		o := Options{CacheDir: filepath.Join(share, "cache")}
		limit := func(size string) {
			t.Helper()
			// The first subvolume has the number 256. Using its path would exceed the
			// limit too.
			runProgram(t, "btrfs-progs", "btrfs", "qgroup", "limit", size, "0/256", mnt)
		}
		mustReachQuota := func(when string) {
			t.Helper()
			_, err := Extract(context.Background(), b.Reader, o)
			lacksSpace(t, err, o, "quota")
			if !errors.Is(err, syscall.EDQUOT) || !strings.Contains(err.Error(), "quota") {
				t.Errorf("%s: error %v does not wrap EDQUOT", when, err)
			}
		}
		const little = "1m" // less than the bundle needs
		limit(little)
		mustReachQuota("install")
		limit("none")
		inst := mustExtract(t, b, o)
		mustBeFast(t, b, o)

		flip(t, filepath.Join(inst.Dir, "libcore.so"), 3)
		limit(little)
		mustReachQuota("repair")
		limit("none")
		if second := mustExtract(t, b, o); !second.Changed {
			t.Error("a damaged file was not written again")
		}

		// An installed bundle is used: stamped, without its stamp, without a lock.
		limit(little)
		mustBeFast(t, b, o)
		remove(t, inst.Dir+".stamp")
		mustRehash(t, b, o)
		remove(t, inst.Dir+".lock")
		remove(t, inst.Dir+".use")
		mustRehash(t, b, o)
		limit("none")
		mustRehash(t, b, o)
		mustBeTidy(t, o.CacheDir)
	})
}

// asUser runs a child as another user, with copies of this binary and of the pack that
// this user can read.
func asUser(t *testing.T, b testBundle, uid uint32) func(*exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "extract-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Path = copyTo(t, c.Path, filepath.Join(dir, "test"))
		c.Env = append(c.Env, packEnv+"="+copyTo(t, b.file, filepath.Join(dir, "pack")))
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
}

func copyTo(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}
