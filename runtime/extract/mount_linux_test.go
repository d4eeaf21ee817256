package extract

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// withMounts runs a test that mounts file systems. A user other than root runs it again
// as root of a user namespace. If that is impossible, the test fails in CI and is
// skipped elsewhere, with the reason.
func withMounts(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() == 0 {
		test(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EACCES):
		skipOrFail(t, "needs root, or user namespaces for all users (the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns): "+err.Error())
	case err != nil:
		t.Fatalf("in a user namespace: %v\n%s", err, out)
	default:
		t.Logf("in a user namespace:\n%s", out)
	}
}

// skipOrFail fails in CI, where every fault must be injected, and skips elsewhere.
func skipOrFail(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// requireMachineRoot skips or fails a test without root of the machine, not of a
// namespace: for block devices, or for files of other users.
func requireMachineRoot(t *testing.T) {
	t.Helper()
	if !isMachineRoot() {
		skipOrFail(t, "needs root")
	}
}

// isMachineRoot reports whether this process is root outside any user namespace, or in
// one that maps root to itself.
func isMachineRoot() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(m))
	return err == nil && os.Geteuid() == 0 && len(f) >= 3 && f[1] == "0"
}

// mountTmpfs mounts a memory file system with the options, such as
// "size=4m,nr_inodes=40", and returns its directory.
func mountTmpfs(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options+",mode=0700"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// remount changes a mount's flags.
func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	poll.Until(t, "the end of what uses "+dir, func() bool { // a process that just exited may still use it
		err = unix.Unmount(dir, 0)
		return !errors.Is(err, unix.EBUSY)
	})
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

// newExt4 creates a file with an ext4 file system of that size in MiB.
func newExt4(t *testing.T, file string, size int64, options ...string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-q", "-F", "-E", "lazy_itable_init=0,nodiscard"}, options...)
	runProgram(t, "e2fsprogs", "mkfs.ext4", append(args, file)...)
}

// newBtrfs creates a file with a btrfs file system, mounts it and enables quotas.
func newBtrfs(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	const size = 256 << 20 // mkfs.btrfs needs at least 109 MiB; the file is sparse
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "btrfs-progs", "mkfs.btrfs", "--quiet", "--nodiscard", "--metadata", "single", image)
	dir := mountAs(t, image, "btrfs", "")
	runProgram(t, "btrfs-progs", "btrfs", "quota", "enable", dir)
	runProgram(t, "btrfs-progs", "btrfs", "quota", "rescan", "-w", dir)
	return dir
}

// runProgram runs a program of a distribution package. Without the program the test
// fails in CI and is skipped elsewhere.
func runProgram(t *testing.T, pkg, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		skipOrFail(t, "needs "+name+" (package "+pkg+")")
	}
	if err != nil {
		t.Fatalf("%s %s (package %s): %v\n%s", name, strings.Join(args, " "), pkg, err, out)
	}
}

// mountImage attaches the file to a loop device and mounts it as ext4.
func mountImage(t *testing.T, file, options string) string {
	t.Helper()
	return mountAs(t, file, "ext4", options)
}

func mountAs(t *testing.T, file, kind, options string) string {
	t.Helper()
	dev := attachLoop(t, file)
	dir := t.TempDir()
	if err := unix.Mount(dev, dir, kind, 0, options); err != nil {
		t.Fatalf("mount %s as %s: %v", file, kind, err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// attachLoop attaches the file to a loop device, see loop(4).
func attachLoop(t *testing.T, file string) string {
	t.Helper()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("loop devices are needed: %v", err)
	}
	defer func() { _ = ctl.Close() }()
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = back.Close() }()
	for range 50 { // another process may attach the free device first
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{
			Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			t.Cleanup(func() { _ = dev.Close() }) // the last close detaches it
			return name
		}
		_ = dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Fatalf("attach %s: %v", name, err)
		}
	}
	t.Fatal("no loop device available")
	return ""
}

// powerCut copies a file system's image as the device has it now. Data that is only in
// the kernel's memory is lost, as in a power cut.
func powerCut(t *testing.T, image string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "after.img")
	in, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return copied
}
