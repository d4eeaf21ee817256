package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A program that prints its flags is limited by its own work, not by the clock: it takes
// minutes where others have the processors, and a configuration that is right would be
// rejected.
func TestBriefProgramsAreLimitedByTheirWork(t *testing.T) {
	t.Parallel()
	run := func(limits briefLimits, script string) error {
		_, _, err := runWithin(t.Context(), limits, []string{"/bin/sh"}, "/", nil, []string{"-c", script})
		return err
	}
	for name, c := range map[string]struct {
		limits briefLimits
		script string
		want   string
	}{
		"computes":    {briefLimits{100 * time.Millisecond, time.Hour, time.Hour}, "while :; do :; done", "it computed for more than 100ms"},
		"waits":       {briefLimits{time.Hour, 100 * time.Millisecond, time.Hour}, "exec sleep 1000", "it waited for more than 100ms"},
		"never exits": {briefLimits{time.Hour, time.Hour, 100 * time.Millisecond}, "exec sleep 1000", "it ran for more than 100ms"},
	} {
		if err := run(c.limits, c.script); !errors.Is(err, ErrStartTimeout) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrStartTimeout and %q", name, err, c.want)
		}
	}

	// A stopped process stands for one that gets no processor.
	file := filepath.Join(t.TempDir(), "pid")
	const idle = 100 * time.Millisecond
	go func() {
		for t.Context().Err() == nil {
			raw, _ := os.ReadFile(file)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
				time.Sleep(10 * idle)
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
			time.Sleep(idle)
		}
	}()
	if err := run(briefLimits{time.Hour, idle, time.Hour}, "echo $$ >"+file+"; kill -STOP $$; exit 0"); err != nil {
		t.Errorf("a program without a processor: %v", err)
	}
}
