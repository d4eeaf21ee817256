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
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 22: the child ignores SIGTERM.
func TestFault22_IgnoresSIGTERM(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}})
		spec.StopTimeout = 200 * time.Millisecond
		c := mustStart(t, spec)
		stopClean(t, c)
		if c.State() != Stopped || c.Err() != nil {
			t.Errorf("state %s, error %v", c.State(), c.Err())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		spec.StopTimeout, spec.SocketDir = time.Hour, filepath.Join(t.TempDir(), "run")
		c = mustStart(t, spec)
		if err := c.Stop(ctx); err != nil { // a cancelled stop kills at once
			t.Error(err)
		}
	})
}

// Fault 22: a program that reacts only to the second SIGTERM gets one before SIGKILL.
func TestFault22_SecondSIGTERM(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const script = `n=0; trap 'n=$((n+1)); [ $n != 2 ] || exit 7' TERM; echo up; while :; do sleep 0.02; done`
		up := make(chan struct{})
		tail := newLogTail(4, nil, discardLog())
		var once sync.Once
		tail.onLine = func(string) { once.Do(func() { close(up) }) }
		p, err := spawn([]string{"/bin/sh", "-c", script}, os.Environ(), "/", newID(12), nil, tail)
		if err != nil {
			t.Fatal(err)
		}
		p.probeTransport = newTransport(nil) // nobody connects
		<-up
		c := childWithoutProcess()
		c.spec.StopTimeout = 3 * time.Second
		c.shutDown(p, false)
		if p.status.code != 7 || p.status.signal != 0 {
			t.Errorf("it exited with %d, signal %v; want its own status 7", p.status.code, p.status.signal)
		}
		tail.close()
	})
}

// Fault 22 in a program that has run out of descriptors: stopping the child needs
// none.
func TestFault22_NoDescriptors(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for how := range exhaustions() {
			t.Run(how, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "run")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // bounds a failure
				defer cancel()
				cmd := exec.CommandContext(ctx, os.Args[0], dir, how)
				cmd.Env = append(os.Environ(), roleName+"="+roleExhausted)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left in the socket directory: %v, %v", left, err)
				}
			})
		}
	})
}

// exhaustion is a way in which a server ends while no descriptor is left.
type exhaustion struct {
	script fakellama.Script
	limits func(s *Spec)
	// end runs once no file can be opened. It returns why the child ended.
	end  func(c *Child) error
	want error
}

// endWithout ends a child that answers a request while no file can be opened.
func (s exhaustion) endWithout(c *Child) error {
	res, err := postCompletion(context.Background(), c)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		return err
	}
	exhaustDescriptors()
	if _, err := os.ReadFile("/proc/self/stat"); !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("opening a file: %w, want EMFILE", err)
	}
	if c.current.isExiting() {
		return errors.New("a process whose state cannot be read is reported as exiting")
	}
	return s.end(c)
}

// exhaustions returns cases with a server that only SIGKILL ends.
func exhaustions() map[string]exhaustion {
	deaf := fakellama.Process{IgnoreSIGTERM: true}
	return map[string]exhaustion{
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

// runExhausted supervises a server, exhausts its own descriptors and stops the
// server. It prints what went wrong.
func runExhausted() int {
	if err := checkExhausted(os.Args[1], exhaustions()[os.Args[2]]); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func checkExhausted(dir string, s exhaustion) error {
	env, err := s.script.Env()
	if err != nil {
		return err
	}
	var pid int
	spec := Spec{
		Argv: []string{os.Args[0]}, SocketDir: dir, Env: []string{roleName + "=" + roleServer, env}, DrainTimeout: -1,
		OnEvent: func(e Event) {
			if pid = max(pid, e.Pid); s.end == nil && e.Pid > 0 {
				exhaustDescriptors()
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
		return fmt.Errorf("process %d still exists: %w", pid, err)
	}
	return nil
}

// exhaustDescriptors leaves this process no free descriptor.
func exhaustDescriptors() {
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
