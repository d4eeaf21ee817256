package torture

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test binary run as a helper process: a parent that starts a sleeper
// and exits at once, or the sleeper.
const roleEnv = "TORTURE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "parent":
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), roleEnv+"=sleeper")
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case "sleeper":
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(Main(m.Run))
}

// TestLeaksAreDetected leaks one resource of each kind and releases it again.
func TestLeaksAreDetected(t *testing.T) {
	for name, leak := range map[string]func(t *testing.T) (says string, undo func()){
		"goroutine": func(*testing.T) (string, func()) {
			stop := make(chan struct{})
			go func() { <-stop }()
			return "goroutines", func() { close(stop) }
		},
		"file": func(t *testing.T) (string, func()) {
			t.Helper()
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			return "/dev/null", func() { _ = f.Close() }
		},
		"temporary file": func(t *testing.T) (string, func()) {
			t.Helper()
			f := filepath.Join(os.TempDir(), "forgotten")
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return f, func() { _ = os.Remove(f) }
		},
		"orphan": orphan,
	} {
		t.Run(name, func(t *testing.T) {
			before, err := takeSnapshot()
			if err != nil {
				t.Fatal(err)
			}
			says, undo := leak(t)
			now, err := takeSnapshot()
			if err != nil {
				t.Fatal(err)
			}
			if more := strings.Join(now.since(before), "\n"); !strings.Contains(more, says) {
				t.Errorf("detected %q, want %q", more, says)
			}
			undo()
			if err := waitReleased(before); err != nil {
				t.Error(err)
			}
		})
	}
}

// A goroutine or file that is released meanwhile does not hide a leak.
func TestReleasesDoNotHideLeaks(t *testing.T) {
	ending, leaked := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	go func() { <-ending; close(ended) }()
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before, err := takeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-leaked }()
	file, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	close(ending)
	<-ended
	if err := errors.Join(pipe.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	now, err := takeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Join(now.since(before), "\n")
	for _, want := range []string{"1 goroutines of", "TestReleasesDoNotHideLeaks", "/dev/zero"} {
		if !strings.Contains(more, want) {
			t.Errorf("%q is not in %q", want, more)
		}
	}
	close(leaked)
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := waitReleased(before); err != nil {
		t.Error(err)
	}
}

// orphan starts a process whose parent has exited.
func orphan(t *testing.T) (says string, undo func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=parent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return "process ", func() {
		if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func TestRoundsRunsAsOftenAsSet(t *testing.T) {
	for env, want := range map[string]int{"": 1, "3": 3} {
		t.Setenv(Env, env)
		got := 0
		Rounds(t, func(*testing.T) { got++ })
		if got != want {
			t.Errorf("%s=%q: %d rounds, want %d", Env, env, got, want)
		}
	}
	for _, bad := range []string{"0", "-1", "many", "1.5"} {
		if n, err := parseRounds(bad); err == nil || !strings.Contains(err.Error(), Env) {
			t.Errorf("%q: %d, %v", bad, n, err)
		}
	}
}

// A temporary file that the tests leave fails the run and is removed.
func TestMainDetectsTemporaryFiles(t *testing.T) {
	base := os.TempDir()
	t.Setenv("TMPDIR", base) // restores it after the test
	if code := Main(func() int { return 0 }); code != 0 {
		t.Errorf("a run without leaks exited with status %d", code)
	}
	t.Setenv("TMPDIR", base)
	var file string
	code := Main(func() int {
		file = filepath.Join(os.TempDir(), "forgotten")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
		return 0
	})
	if code == 0 {
		t.Error("the temporary file was not detected")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file still exists: %v", err)
	}
}

func TestParseStatAcceptsAnyName(t *testing.T) {
	for stat, want := range map[string]struct {
		name   string
		status byte
		parent int
		ok     bool
	}{
		"12 (go) S 7 12 12":        {"go", 'S', 7, true},
		"12 (a) b) (c) Z 1 12":     {"a) b) (c", 'Z', 1, true},
		"12 (no end S 7":           {},
		"12 (go) S":                {},
		"12 (go) S parent":         {"go", 'S', 0, false},
		"":                         {},
		"12 )go( S 7":              {},
		"12 (go) Sleeping 7 12 12": {},
	} {
		name, status, parent, ok := parseStat([]byte(stat))
		if ok != want.ok || ok && (name != want.name || status != want.status || parent != want.parent) {
			t.Errorf("%q: %q %c %d %v", stat, name, status, parent, ok)
		}
	}
}

func TestMountsBelowExcludesTheDirectory(t *testing.T) {
	const table = "32 25 0:29 / /tmp/x/a rw - tmpfs tmpfs rw\n33 25 0:30 / /tmp/xy rw - tmpfs tmpfs rw\n34 25 0:31 / /tmp/x rw - tmpfs tmpfs rw\nshort\n"
	if got := mountsBelow(table, "/tmp/x"); !slices.Equal(got, []string{"/tmp/x/a"}) {
		t.Errorf("got %q", got)
	}
}
