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

// powerCutAt installs the bundle on an ext4 file system in a process that
// stops at the step, cuts the power there, and returns the cache as it is
// after the machine came up again.
func powerCutAt(t *testing.T, b testBundle, step string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	newExt4(t, image, 24)
	// Commit far apart: only what is synced gets to the disk.
	cache := filepath.Join(mountImage(t, image, "commit=300,noauto_da_alloc"), "cache")
	c := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"="+step))
	c.awaitStop()
	after := filepath.Join(mountImage(t, powerCut(t, image), ""), "cache")
	c.signal(syscall.SIGKILL)
	c.killed()
	return after
}

// TestFault03TornWrite cuts the power before anything is synced, and in the
// middle of syncing.
func TestFault03TornWrite(t *testing.T) {
	realRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		for _, step := range []string{"staged", "extracted", "synced"} {
			o := Options{CacheDir: powerCutAt(t, b, step)}
			if inst := mustExtract(t, b, o); !inst.Changed {
				t.Errorf("power cut at %q: there was a bundle before it had its name", step)
			}
			mustBeTidy(t, o.CacheDir)
			mustBeWarm(t, b, o)
		}
	})
}

// TestFault04RenamedNotSynced cuts the power when the bundle has its name in
// memory and perhaps not on the disk: it must be whole or not there.
func TestFault04RenamedNotSynced(t *testing.T) {
	realRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: powerCutAt(t, b, "renamed")}
		mustExtract(t, b, o)
		mustBeTidy(t, o.CacheDir)
		mustBeWarm(t, b, o)

		// From here on the bundle must have survived as it is.
		for _, step := range []string{"folder synced", "sealed"} {
			o := Options{CacheDir: powerCutAt(t, b, step)}
			if inst := mustExtract(t, b, o); inst.Changed {
				t.Errorf("power cut at %q: files had to be written again", step)
			}
			mustBeTidy(t, o.CacheDir)
			mustBeWarm(t, b, o)
		}
	})
}

func TestFault05DiskFull(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, false)
		torture.Rounds(t, func(t *testing.T) {
			// Seen before a byte is written.
			o := Options{CacheDir: filepath.Join(mountTmpfs(t, 0, "size=1m"), "cache")}
			mustForesee(t, b, o, "bytes")
			// Seen when it happens: somebody else fills the disk meanwhile.
			mnt := mountTmpfs(t, 0, "size=64m")
			o = Options{CacheDir: filepath.Join(mnt, "cache")}
			filler := filepath.Join(mnt, "filler")
			o.Progress = func(int64, int64) { fill(t, filler) }
			_, err := Extract(context.Background(), b.Reader, o)
			lacksSpace(t, err, o, "bytes")
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v does not carry ENOSPC", err)
			}
			remove(t, filler)
			o.Progress = nil
			mustExtract(t, b, o)
			mustBeWarm(t, b, o)
			// In a repair what is there must stay.
			dir := mustExtract(t, b, o).Dir
			flip(t, filepath.Join(dir, "libcore.so"), 3)
			fill(t, filler)
			mustLackSpace(t, b, o, "bytes")
			remove(t, filler)
			mustExtract(t, b, o)
			// A whole bundle is used, though there is no room to say that it was
			// looked at.
			remove(t, dir+".seal")
			fill(t, filler)
			mustLookCloser(t, b, o)
			remove(t, filler)
			mustLookCloser(t, b, o)
			if _, err := os.Stat(dir + ".seal"); err != nil {
				t.Errorf("with room again it was not sealed: %v", err)
			}
		})
	})
}

func TestFault05NoInodes(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newBundle(t, false)
		torture.Rounds(t, func(t *testing.T) {
			o := Options{CacheDir: filepath.Join(mountTmpfs(t, 0, "size=64m,nr_inodes=16"), "cache")}
			mustForesee(t, b, o, "inodes")
		})
	})
}

// TestFault05NoInodeAtAll: not even the folders or the locks can be made. What is
// installed and right is used all the same.
func TestFault05NoInodeAtAll(t *testing.T) {
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
			for _, name := range []string{".seal", ".lock", ".use"} {
				remove(t, dir+name)
			}
			useUpInodes(t, filepath.Join(mnt, "filler"))
			mustLookCloser(t, b, o)
			flip(t, filepath.Join(dir, "libcore.so"), 3)
			mustLackSpace(t, b, o, "inodes")
			removeAll(t, filepath.Join(mnt, "filler"))
			mustExtract(t, b, o)
			mustBeWarm(t, b, o)
		})
	})
}

// useUpInodes makes a folder and files in it until there is no inode left.
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

// mustLackSpace extracts and checks that there is too little room for it.
func mustLackSpace(t *testing.T, b testBundle, o Options, what string) {
	t.Helper()
	_, err := Extract(context.Background(), b.Reader, o)
	lacksSpace(t, err, o, what)
}

// mustForesee extracts and checks that it is seen before the first byte is written
// that there is too little room.
func mustForesee(t *testing.T, b testBundle, o Options, what string) {
	t.Helper()
	o.Progress = func(done, total int64) { t.Errorf("%d of %d bytes were written", done, total) }
	_, err := Extract(context.Background(), b.Reader, o)
	lacksSpace(t, err, o, what)
	var se *SpaceError
	if errors.As(err, &se) && se.Err != nil {
		t.Errorf("the system had to say so: %v", err)
	}
}

// lacksSpace checks that the error says how much is needed, and that nothing
// is left behind.
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

// fill takes what is left of the file system.
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

// TestFault06DiskError writes to a disk that gives out in the middle of it:
// the page cache still takes the writes, and fsync reports EIO.
func TestFault06DiskError(t *testing.T) {
	realRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		// A sealed memory file refuses writes, which a loop device over it
		// hands on as an input/output error.
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

// TestFault06DiskLies writes to a thin disk: its file system shows room that
// the storage below does not have, and says so only at fsync.
func TestFault06DiskLies(t *testing.T) {
	realRoot(t)
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

// TestFault06Quota writes to a file system on which its user's share is used up:
// there is room, and every write fails with EDQUOT.
func TestFault06Quota(t *testing.T) {
	realRoot(t)
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		mnt := newBtrfs(t)
		share := filepath.Join(mnt, "share")
		runProgram(t, "btrfs-progs", "btrfs", "subvolume", "create", share)
		o := Options{CacheDir: filepath.Join(share, "cache")}
		limit := func(size string) {
			t.Helper()
			// The first subvolume has the number 256. It is named by it, since to
			// lift the limit through its own folder would be over the limit too.
			runProgram(t, "btrfs-progs", "btrfs", "qgroup", "limit", size, "0/256", mnt)
		}
		mustReachQuota := func(when string) {
			t.Helper()
			_, err := Extract(context.Background(), b.Reader, o)
			lacksSpace(t, err, o, "quota")
			if !errors.Is(err, syscall.EDQUOT) || !strings.Contains(err.Error(), "quota") {
				t.Errorf("%s: error %v does not carry EDQUOT", when, err)
			}
		}
		const little = "1m" // less than the bundle takes
		limit(little)
		mustReachQuota("install")
		limit("none")
		inst := mustExtract(t, b, o)
		mustBeWarm(t, b, o)

		flip(t, filepath.Join(inst.Dir, "libcore.so"), 3)
		limit(little)
		mustReachQuota("repair")
		limit("none")
		if again := mustExtract(t, b, o); !again.Changed {
			t.Error("a damaged file was not written again")
		}

		// What is there does: sealed, without its seal, without a lock.
		limit(little)
		mustBeWarm(t, b, o)
		remove(t, inst.Dir+".seal")
		mustLookCloser(t, b, o)
		remove(t, inst.Dir+".lock")
		remove(t, inst.Dir+".use")
		mustLookCloser(t, b, o)
		limit("none")
		mustLookCloser(t, b, o)
		mustBeTidy(t, o.CacheDir)
	})
}

// asUser makes a child run as another user, with a copy of this binary and of
// the pack that this user can read.
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
