//go:build linux

package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// starvation is a way in which a server comes to its end.
type starvation struct {
	script fakellama.Script
	limits func(s *Spec)
	// end runs once nothing can be opened any more; it gives why the child ended.
	end  func(c *Child) error
	want error
}

// starvations have a server that does nothing of its own accord: SIGKILL alone
// ends it.
func starvations() map[string]starvation {
	deaf := fakellama.Process{IgnoreSIGTERM: true}
	return map[string]starvation{
		"cancelled": {
			script: fakellama.Script{Process: deaf},
			limits: func(s *Spec) { s.StopTimeout = time.Hour },
			end: func(c *Child) error {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return c.Stop(ctx)
			},
		},
		"stop": {
			script: fakellama.Script{Process: deaf},
			limits: func(s *Spec) { s.StopTimeout = 200 * time.Millisecond },
			end:    func(c *Child) error { return c.Stop(context.Background()) },
		},
		"stall": {
			script: fakellama.Script{Process: deaf, Faults: []fakellama.Fault{{Kind: fakellama.KindStall, AfterTokens: 1}}},
			limits: func(s *Spec) { s.StallTimeout, s.StallGrace = 200*time.Millisecond, 100*time.Millisecond },
			end:    func(c *Child) error { <-c.Done(); return c.Err() },
			want:   ErrStalled,
		},
		"start": {
			script: fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true, NeverListens: true}},
			limits: func(s *Spec) { s.StartTimeout = 300 * time.Millisecond },
			want:   ErrStartTimeout,
		},
	}
}

// starve is a program that supervises a server, uses up its descriptors and
// ends the server. It says what is wrong with the end.
func starve() int {
	if err := starved(os.Args[1], starvations()[os.Args[2]]); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func starved(dir string, s starvation) error {
	env, err := s.script.Env()
	if err != nil {
		return err
	}
	var pid int
	spec := Spec{
		Argv: []string{os.Args[0]}, SocketDir: dir, Env: []string{roleName + "=" + roleServer, env}, DrainTimeout: -1,
		OnEvent: func(e Event) {
			if pid = max(pid, e.Pid); s.end == nil && e.Pid > 0 {
				useUp()
			}
		},
	}
	s.limits(&spec)
	c, err := Start(context.Background(), spec)
	if s.end != nil {
		if err != nil {
			return err
		}
		err = s.endWithout(c)
	}
	if !errors.Is(err, s.want) {
		return fmt.Errorf("it ended with %w, want %w", err, s.want)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d is there: %w", pid, err)
	}
	return nil
}

// endWithout ends a child that answers a request while nothing can be opened.
func (s starvation) endWithout(c *Child) error {
	res, err := complete(context.Background(), c)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		return err
	}
	useUp()
	if _, err := os.ReadFile("/proc/self/stat"); !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("opening a file: %w, want EMFILE", err)
	}
	if c.cur.ending() {
		return errors.New("that nothing can be read of a process is taken for its end")
	}
	return s.end(c)
}

// useUp leaves this process no descriptor to open.
func useUp() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	limit.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	for {
		if _, err := unix.Dup(0); err != nil {
			return
		}
	}
}

// Fault 22 in a program that has run out of descriptors: whatever ends the
// child, it takes none.
func TestFault22NoDescriptors(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for how := range starvations() {
			t.Run(how, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "run")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // bounds a failure
				defer cancel()
				cmd := exec.CommandContext(ctx, os.Args[0], dir, how)
				cmd.Env = append(os.Environ(), roleName+"="+roleStarve)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left in the socket folder: %v, %v", left, err)
				}
			})
		}
	})
}
