package supervise

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// readyChild is a child whose process is ready, without a process.
func readyChild(p *process) *Child {
	c := &Child{
		state: Ready, cur: p, deaths: map[int]error{}, changed: make(chan struct{}),
		hub: newHub(slog.New(slog.DiscardHandler)),
	}
	c.gate = &gate{child: c}
	return c
}

func aProcess(gen int) *process {
	return &process{gen: gen, base: newBase(nil), probe: newBase(nil), exited: make(chan struct{})}
}

// Between the news of a death and the change of state nobody is sent to the
// dead process.
func TestAdmitPassesOverTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		dead, next := aProcess(1), aProcess(2)
		c := readyChild(dead)
		if p, err := c.admit(ctx); p != dead || err != nil {
			t.Fatalf("alive: %v, %v", p, err)
		}
		c.bury(dead, errors.New("struck"))
		got := make(chan *process, 1)
		go func() {
			p, err := c.admit(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- p
		}()
		synctest.Wait()
		select {
		case p := <-got:
			t.Fatalf("run %d was given, which is dead", p.gen)
		default:
		}
		c.change(Starting, nil, "")
		synctest.Wait()
		c.mu.Lock()
		c.cur = next
		c.mu.Unlock()
		c.change(Ready, nil, "")
		if p := <-got; p != next {
			t.Errorf("got %v", p)
		}
	})
}

// A drain begins with a change of state: whatever was let through before it
// counts as running by then, and nothing is let through after.
func TestDrainSeesWhatWasAdmitted(t *testing.T) {
	for range 200 {
		c := readyChild(aProcess(1))
		var admitted atomic.Int64
		var begun, ended sync.WaitGroup
		begun.Add(4)
		for range 4 {
			ended.Go(func() {
				begun.Done()
				for {
					if _, err := c.admit(t.Context()); err != nil {
						if !errors.Is(err, ErrStopped) {
							t.Error(err)
						}
						return
					}
					admitted.Add(1)
				}
			})
		}
		begun.Wait()
		c.change(Stopping, nil, "")
		seen := c.gate.running.Load()
		ended.Wait()
		if got := admitted.Load(); got != seen {
			t.Fatalf("the drain saw %d requests, %d were let through", seen, got)
		}
	}
}

// TestEnding reads lines as proc(5) has them: a process whose files the kernel
// already takes away is ending, though it is no zombie yet.
func TestEnding(t *testing.T) {
	for line, want := range map[string]struct{ dead, exiting bool }{
		"7 (llama-server) S 1 7 7 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":   {false, false},
		"7 (llama-server) D 1 7 7 0 -1 4194308 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":   {false, true},
		"7 (a ) Z 1) 2) R 1 7 7 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 4711 1 1":     {false, false},
		"7 (llama-server) Z 1 7 7 0 -1 4228364 1 0 0 0 1 1 0 0 20 0 1 0 4711 0 0 0": {true, true},
	} {
		s, err := parseStat([]byte(line))
		if err != nil || s.start != 4711 || s.dead() != want.dead || s.exiting() != want.exiting {
			t.Errorf("%q: %+v, %v", line, s, err)
		}
	}
	for _, line := range []string{"", "7 (x", "7 (x) S 1 7", "7 (x) S 1 7 7 0 -1 flags 1 0 0 0 1 1 0 0 20 0 1 0 4711 1"} {
		if s, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, s)
		}
	}
	p := &process{pid: os.Getpid()}
	if p.ending() {
		t.Error("this process is taken for ending")
	}
	if p.reaped = true; !p.ending() {
		t.Error("a process that was reaped is not")
	}
}
