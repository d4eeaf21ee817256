//go:build linux

package procstat

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

// TestParse parses lines as in proc(5): a process whose files the kernel already
// closes is exiting, although it is not a zombie yet.
func TestParse(t *testing.T) {
	for line, want := range map[string]struct{ dead, exiting bool }{
		"7 (llama-server) S 1 7 7 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":   {false, false},
		"7 (llama-server) D 1 7 7 0 -1 4194308 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":   {false, true},
		"7 (a ) Z 1) 2) R 1 7 7 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":     {false, false},
		"7 (llama-server) Z 1 7 7 0 -1 4228364 1 0 0 0 1 1 0 0 20 0 1 0 4711 0 0 0": {true, true},
	} {
		s, err := parse([]byte(line))
		if err != nil || s.Start != 4711 || s.IsZombie() != want.dead || s.IsExiting() != want.exiting {
			t.Errorf("%q: %+v, %v", line, s, err)
		}
	}
	for _, line := range []string{"", "7 (x", "7 (x) S 1 7", "7 (x) S 1 7 7 0 -1 flags 1 0 0 0 1 1 0 0 20 0 1 0 4711 1"} {
		if s, err := parse([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, s)
		}
	}
}

// A process is found by its id and start time until it is reaped.
func TestIsRunning(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	child, err := Read(pid)
	if err != nil {
		t.Fatal(err)
	}
	self, err := Read(os.Getpid())
	if err != nil || child.Start < self.Start || !IsRunning(os.Getpid(), self.Start) {
		t.Errorf("this process started at %d, its child at %d: %v", self.Start, child.Start, err)
	}
	for start, want := range map[uint64]bool{child.Start: true, child.Start - 1: false, 0: false} {
		if got := IsRunning(pid, start); got != want {
			t.Errorf("started at %d, asked for %d: %v", child.Start, start, got)
		}
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if IsRunning(pid, child.Start) {
		t.Error("a process that was reaped is reported as running")
	}
	if _, err := Read(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that cannot exist: %v", err)
	}
}

func TestBootID(t *testing.T) {
	if id := BootID(); len(id) != len("00000000-0000-0000-0000-000000000000") || id != BootID() {
		t.Errorf("the boot is %q", id)
	}
}
