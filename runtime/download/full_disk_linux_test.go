package download_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/runtime/download"
)

// envDisk tells the test that it runs in namespaces of its own, where it may mount.
const envDisk = "GOROCM_TEST_DISK"

// A disk that is too small is noticed before the first byte; one that others fill in
// the meantime ends the download, which continues when there is space.
func TestFetchOnAFullDisk(t *testing.T) {
	if os.Getenv(envDisk) == "" {
		runInNamespaces(t)
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	c := client()
	c.ChunkSize = 16 << 10
	large := content(2<<20, 30)
	if _, err := c.Fetch(t.Context(), source(serve(t, honest(large)), large), targetIn(t, dir)); !errors.Is(err, download.ErrSpace) {
		t.Fatalf("a file larger than the disk: %v", err)
	}
	b := content(400<<10, 31)
	ballast := filepath.Join(dir, "ballast")
	var requests atomic.Int32
	filled := make(chan struct{}) // until then, the ballast is still being written
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 { // the size was checked with the first
			defer close(filled)
			if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the disk is not full: %v", err)
			}
		}
		honest(b)(w, r)
	}))
	if _, err := c.Fetch(t.Context(), source(url, b), targetIn(t, dir)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a disk that others filled: %v", err)
	}
	<-filled
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	dst := targetIn(t, dir)
	if got, err := c.Fetch(t.Context(), source(url, b), dst); err != nil || got.SHA256 != digest(b) {
		t.Fatalf("with space again: %+v, %v", got, err)
	}
	checkFile(t, dst, b)
}

// runInNamespaces runs this test alone in another process that may mount.
func runInNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envDisk+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
