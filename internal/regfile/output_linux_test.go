package regfile_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// contentIs reports a file with another content, and other files in its directory.
func contentIs(t *testing.T, path, want string, files int) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s has %q, %v; want %q", path, got, err, want)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != files {
		t.Errorf("%v, %v; want %d files", entries, err, files)
	}
}

// A file has its earlier content until all of the new one is written, whatever happens
// meanwhile.
func TestOutputReplacesAsAWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report")
	if err := os.WriteFile(path, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, commit := range []bool{false, true} {
		o, err := regfile.Create(path, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(o, "after"); err != nil {
			t.Fatal(err)
		}
		contentIs(t, path, "before", 2)
		if commit {
			err = o.Commit()
		}
		if err = errors.Join(err, o.Close()); err != nil {
			t.Fatal(err)
		}
	}
	contentIs(t, path, "after", 1)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v; want the permissions of the file that was there", info.Mode(), err)
	}
}

// A full disk leaves the earlier content.
func TestReplaceOnAFullDisk(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var limit, small syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "models.lock")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	small = limit
	small.Cur = 4096
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	err := regfile.Replace(path, make([]byte, 10000), 0o600)
	if restored := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v", err)
	}
	contentIs(t, path, "before", 1)
}

func TestReplaceFollowsLinks(t *testing.T) {
	t.Parallel()
	dir, links := t.TempDir(), t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(links, "link")
	if err := errors.Join(os.WriteFile(file, []byte("before"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if err := regfile.Replace(link, []byte("after"), 0o644); err != nil {
		t.Fatal(err)
	}
	contentIs(t, file, "after", 1)
	if target, err := os.Readlink(link); err != nil || target != file {
		t.Errorf("the link is %q, %v", target, err)
	}
}

// Root leaves a user's file to the user.
func TestReplaceKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can write the file of another user and keep its owner")
		return
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 4711, 4712)); err != nil {
		t.Fatal(err)
	}
	if err := regfile.Replace(path, []byte("after"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("%+v", info.Sys())
	}
}

// What cannot be written is reported before anything is, and nothing is waited for.
func TestCreateRejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{dir: syscall.EISDIR, fifo: syscall.ENXIO, filepath.Join(dir, "none", "file"): fs.ErrNotExist, "": fs.ErrNotExist} {
		if o, err := regfile.Create(name, 0o600); !errors.Is(err, want) || o != nil {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

// A device and the standard output are written to, and not replaced.
func TestReplaceWritesStreams(t *testing.T) {
	t.Parallel()
	if err := regfile.Replace("/dev/null", []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	if err := regfile.Replace("/dev/full", []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "output")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "a"); err != nil {
		t.Fatal(err)
	}
	if err := regfile.Replace(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	contentIs(t, path, "ab", 1)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
