//go:build linux

package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// slowHandler takes no record before it is let, and counts then.
type slowHandler struct {
	slog.Handler
	let         chan struct{}
	lines, lost int
}

func (h *slowHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *slowHandler) Handle(_ context.Context, r slog.Record) error {
	<-h.let
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "line":
			h.lines++
		case "dropped":
			h.lost += int(a.Value.Uint64())
		}
		return true
	})
	return nil
}

// Fault 30: nobody takes the lines, and the program is read all the same. What was
// given up is told.
func TestFault30NobodyTakesTheLines(t *testing.T) {
	const lines = 4 * relayDepth
	h := &slowHandler{Handler: slog.DiscardHandler, let: make(chan struct{})}
	tail := newLogTail(8, nil, slog.New(h))
	read := make(chan struct{})
	go func() {
		defer close(read)
		tail.consume(strings.NewReader(strings.Repeat("a line\n", lines)))
	}()
	select {
	case <-read:
	case <-time.After(time.Minute): // bounds a failure
		t.Error("the program's output waits for the log")
	}
	close(h.let)
	<-read
	tail.close()
	if h.lost < lines-relayDepth-1 || h.lines+h.lost != lines {
		t.Errorf("%d lines came and %d are told to be lost, of %d", h.lines, h.lost, lines)
	}
}

// Fault 18: what starting again cannot cure is not started again, whatever the
// policy.
func TestFault18IsNotRepeated(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Process: fakellama.Process{
			ExitEarly: true, ExitCode: 1,
			Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'",
		}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3}
		var last Event
		spec.OnEvent = func(e Event) { last = e }
		_, err := Start(t.Context(), spec)
		if !errors.Is(err, ErrModelInvalid) || errors.Is(err, ErrCrashLoop) {
			t.Errorf("got %v, want an invalid model and no crash loop", err)
		}
		if last.To != Failed || last.Attempt != 1 {
			t.Errorf("it ended as %s after %d attempts, want failed after one", last.To, last.Attempt)
		}
	})
}

// Fault 24: a process of the group that carries no marker goes with its leader.
func TestFault24NamelessInTheGroup(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		spec := fake(t, roleServer, fakellama.Script{})
		spec.Argv = []string{"sh", "-c", fmt.Sprintf(`env -i sleep 600 & echo $! >%s; exec "$0" "$@"`, file), os.Args[0]}
		c := mustStart(t, spec)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(string(raw), &pid); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the grandchild to have lost its marker", func() bool {
			return running(pid) && !hasMarker(pid, c.record.Marker)
		})
		start, err := startTime(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { killChecked(pid, func() bool { return alive(pid, start) }) }) // where the test fails
		stopClean(t, c)
		waitFor(t, "the grandchild to go", func() bool { return !alive(pid, start) })
	})
}

// bareChild is a child without a program, as its owner sees it.
func bareChild() *Child {
	return &Child{
		spec: Spec{Log: quiet(), StallGrace: time.Hour}, hub: newHub(quiet()),
		changed: make(chan struct{}), kill: make(chan struct{}),
	}
}

// A stall that is over takes back the end that it was given.
func TestStallIsTakenBack(t *testing.T) {
	c, s := bareChild(), service{since: time.Now()}
	c.heed(&s, observation{stalled: true, idle: time.Minute})
	if s.grace == nil || s.stuck.IsZero() || c.State() != Stalled {
		t.Fatalf("a stall: %+v, state %s", s, c.State())
	}
	c.heed(&s, observation{})
	if s.grace != nil || !s.stuck.IsZero() || c.State() != Ready {
		t.Errorf("tokens move again: %+v, state %s", s, c.State())
	}
}

// Fault 23: the signal that ends a child with its parent goes by the thread that
// forked, which must therefore live as long as the child.
func TestFault23ThreadIsHeld(t *testing.T) {
	mustStart(t, fake(t, roleServer, fakellama.Script{}))
	buf := make([]byte, 1<<20)
	found := 0
	for _, stack := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if !bytes.Contains(stack, []byte("(*process).live(")) {
			continue
		}
		found++
		if head, _, _ := bytes.Cut(stack, []byte("\n")); !bytes.Contains(head, []byte("locked to thread")) {
			t.Errorf("the child's goroutine may change its thread: %s", head)
		}
	}
	if found != 1 {
		t.Errorf("%d goroutines hold a child, want 1", found)
	}
}

// Fault 22: a program that heeds the second SIGTERM alone gets one before SIGKILL.
func TestFault22SecondSIGTERM(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const script = `n=0; trap 'n=$((n+1)); [ $n != 2 ] || exit 7' TERM; echo up; while :; do sleep 0.02; done`
		up := make(chan struct{})
		tail := newLogTail(4, nil, quiet())
		var once sync.Once
		tail.onLine = func(string) { once.Do(func() { close(up) }) }
		p, err := spawn([]string{"/bin/sh", "-c", script}, os.Environ(), "/", newID(12), nil, tail)
		if err != nil {
			t.Fatal(err)
		}
		<-up
		c := bareChild()
		c.spec.StopTimeout = 6 * time.Second
		c.shutDown(p, false)
		if p.status.code != 7 || p.status.signal != 0 {
			t.Errorf("it ended with %d, signal %v; want its own status 7", p.status.code, p.status.signal)
		}
		tail.close()
	})
}

// Fault 27: another user's socket stays.
func TestFault27SocketOfAnother(t *testing.T) {
	const other = 4242
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), socketName)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := os.Chown(path, other, other); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(path); !errors.Is(err, ErrPermission) {
		t.Errorf("got %v, want ErrPermission", err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil || st.Uid != other {
		t.Errorf("the socket is gone: %v", err)
	}
}
