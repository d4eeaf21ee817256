package supervise

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// Between the news of a death and the change of state nobody is sent to the
// dead process.
func TestWaitReadyPassesOverTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		dead, next := &process{gen: 1}, &process{gen: 2}
		c := &Child{
			state: Ready, cur: dead, deaths: map[int]error{}, changed: make(chan struct{}),
			gate: &gate{base: newBase(nil)}, probe: newBase(nil), hub: newHub(slog.New(slog.DiscardHandler)),
		}
		if p, err := c.waitReady(ctx); p != dead || err != nil {
			t.Fatalf("alive: %v, %v", p, err)
		}
		c.bury(dead, errors.New("struck"))
		got := make(chan *process, 1)
		go func() {
			p, err := c.waitReady(ctx)
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
