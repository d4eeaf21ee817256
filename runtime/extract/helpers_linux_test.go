package extract

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// These helpers change files and then reset their times, to hide the change.

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	change(t, path, func(f *os.File) error {
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			return err
		}
		b[0] ^= 0x40
		_, err := f.WriteAt(b[:], at)
		return err
	})
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	change(t, path, func(f *os.File) error { return f.Truncate(size) })
}

func change(t *testing.T, path string, do func(*os.File) error) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// removeAll removes a directory while other processes may create files in it.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	var err error
	for range 100 {
		if err = os.RemoveAll(dir); err == nil {
			return
		}
	}
	t.Error(err)
}

// startServer starts the bundle's program as the supervisor does, and waits until it
// runs.
func startServer(t *testing.T, inst *Installed) *child {
	t.Helper()
	argv := inst.Command()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = inst.Dir
	c := start(t, cmd)
	if got := c.line(); got != "running" {
		t.Fatalf("the server printed %q", got)
	}
	return c
}

// stopServer closes the server's input, which stops it.
func (c *child) stopServer() {
	c.t.Helper()
	if err := c.in.Close(); err != nil {
		c.t.Error(err)
	}
	if out, err := c.wait(); err != nil || out != "" {
		c.t.Errorf("server: %v: %s", err, out)
	}
}
