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

// roleEnv makes this binary be a process that the tests need: one that starts
// a sleeper and ends at once, or the sleeper.
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
	os.Exit(Main(m))
}

// TestWhatIsLeftIsSeen leaves one thing of each kind and takes it away again.
func TestWhatIsLeftIsSeen(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T) (says string, undo func()){
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
			before, err := look()
			if err != nil {
				t.Fatal(err)
			}
			says, undo := leave(t)
			now, err := look()
			if err != nil {
				t.Fatal(err)
			}
			if more := strings.Join(now.beyond(before), "\n"); !strings.Contains(more, says) {
				t.Errorf("seen: %q, want %q", more, says)
			}
			undo()
			if err := gone(before); err != nil {
				t.Error(err)
			}
		})
	}
}

// orphan leaves a process whose parent has died.
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

func TestRounds(t *testing.T) {
	for env, want := range map[string]int{"": 1, "3": 3} {
		t.Setenv(Env, env)
		got := 0
		Rounds(t, func(*testing.T) { got++ })
		if got != want {
			t.Errorf("%s=%q: %d rounds, want %d", Env, env, got, want)
		}
	}
	for _, bad := range []string{"0", "-1", "many", "1.5"} {
		if n, err := count(bad); err == nil || !strings.Contains(err.Error(), Env) {
			t.Errorf("%q: %d, %v", bad, n, err)
		}
	}
}

// TestMainSeesTemporaryFiles: what tests leave in their folder fails the run.
func TestMainSeesTemporaryFiles(t *testing.T) {
	base := os.TempDir()
	t.Setenv("TMPDIR", base) // is put back after the test
	if code := within(func() int { return 0 }); code != 0 {
		t.Errorf("a run that left nothing ended with %d", code)
	}
	t.Setenv("TMPDIR", base)
	var file string
	code := within(func() int {
		file = filepath.Join(os.TempDir(), "forgotten")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
		return 0
	})
	if code == 0 {
		t.Error("a forgotten file was not seen")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	for stat, want := range map[string]struct {
		name   string
		state  byte
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
		name, state, parent, ok := parseStat([]byte(stat))
		if ok != want.ok || ok && (name != want.name || state != want.state || parent != want.parent) {
			t.Errorf("%q: %q %c %d %v", stat, name, state, parent, ok)
		}
	}
}

func TestMountsBelow(t *testing.T) {
	const table = "32 25 0:29 / /tmp/x/a rw - tmpfs tmpfs rw\n33 25 0:30 / /tmp/xy rw - tmpfs tmpfs rw\n34 25 0:31 / /tmp/x rw - tmpfs tmpfs rw\nshort\n"
	if got := mountsBelow(table, "/tmp/x"); !slices.Equal(got, []string{"/tmp/x/a"}) {
		t.Errorf("got %q", got)
	}
}
