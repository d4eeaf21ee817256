//go:build linux

package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// piece is what one event of a stream brought.
type piece struct {
	Content string  `json:"content"`
	Tokens  []int32 `json:"tokens"`
	Stop    bool    `json:"stop"`
}

// readPieces reads one completion event by event. done says that its final event
// came; an event that was cut off is none.
func readPieces(ctx context.Context, c *Child) (got []piece, done bool, err error) {
	res, err := complete(ctx, c)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, false, errors.New(res.Status)
	}
	for in := bufio.NewReader(res.Body); ; {
		line, err := in.ReadString('\n')
		if data, ok := strings.CutPrefix(line, "data: "); ok && err == nil {
			var p piece
			if err := json.Unmarshal([]byte(data), &p); err != nil {
				return got, done, err
			}
			got, done = append(got, p), p.Stop
		}
		if errors.Is(err, io.EOF) {
			return got, done, nil
		}
		if err != nil {
			return got, done, err
		}
	}
}

// Fault 21, again and again: while several clients read, the process is killed
// at any moment. Each of them gets the whole answer, or its beginning and the
// death: no token is lost, none comes twice, none is another's.
func TestFault21NoTokenLostOrDoubled(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const clients, deaths = 4, 3
		spec := fake(t, roleServer, fakellama.Script{
			Reply: strings.Repeat("one two three four five six seven. ", 6), TokenDelay: time.Millisecond, Slots: clients,
		})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxFailures: 10 * deaths}
		c := mustStart(t, spec)
		events, unsubscribe := c.Subscribe()
		defer unsubscribe()
		want, done, err := readPieces(t.Context(), c)
		if err != nil || !done || len(want) < 40 {
			t.Fatalf("undisturbed: %d events, %v", len(want), err)
		}
		stop := make(chan struct{})
		var whole, cut atomic.Int64
		var readers sync.WaitGroup
		for range clients {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					got, done, err := readPieces(t.Context(), c)
					judgePieces(t, want, got, done, err)
					if done {
						whole.Add(1)
					} else {
						cut.Add(1)
					}
				}
			})
		}
		for range deaths {
			time.Sleep(rand.N(60 * time.Millisecond)) // wherever the readers are then
			pid := c.Pid()
			if pid <= 0 {
				t.Fatalf("ready without a process: %d", pid)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
			until(t, events, Ready)
		}
		close(stop)
		readers.Wait()
		t.Logf("%d whole answers, %d cut by a death", whole.Load(), cut.Load())
		got, done, err := readPieces(t.Context(), c) // the last process lives
		if judgePieces(t, want, got, done, err); !done {
			t.Errorf("%d events and no end when nobody dies any more", len(got))
		}
		if n := c.ActiveRequests(); n != 0 {
			t.Errorf("%d requests count as running", n)
		}
	})
}

// judgePieces holds one answer against the undisturbed one.
func judgePieces(t *testing.T, want, got []piece, done bool, err error) {
	t.Helper()
	same := func(a, b piece) bool {
		return a.Content == b.Content && a.Stop == b.Stop && slices.Equal(a.Tokens, b.Tokens)
	}
	var exit *ExitError
	switch {
	case len(got) > len(want) || !slices.EqualFunc(got, want[:len(got)], same):
		t.Errorf("%d events that are not the beginning of the answer: %+v", len(got), got)
	case done && len(got) != len(want):
		t.Errorf("%d of %d events and the final one", len(got), len(want))
	case !done && (!errors.As(err, &exit) || exit.Signal != syscall.SIGKILL):
		t.Errorf("%d of %d events and no final one: %v, want the death of the process", len(got), len(want), err)
	}
}

// What was let through to one process never gets to the next: that one still
// loads its model and would refuse it.
func TestRequestsStayWithTheirProcess(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{LoadTime: 400 * time.Millisecond})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		events, unsubscribe := c.Subscribe()
		defer unsubscribe()
		first, err := c.admit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(first.pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, events, Loading) // the next one answers, with 503
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL()+"/props", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.gate.send(first, req, false)
		c.gate.running.Add(-1)
		if err == nil {
			t.Errorf("a dead process answered %s", res.Status)
			_ = res.Body.Close()
		}
		if death := c.deathOf(t.Context(), first); death == nil {
			t.Error("its death is not known")
		}
		// Through the gate it waits, and is answered.
		res, err = c.HTTPClient().Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("the waiting request: %v, %v", res, err)
		}
		_ = res.Body.Close()
	})
}

// A server that wedged is found out though no caller has the patience that a
// stall takes.
func TestStallIsSeenThroughImpatience(t *testing.T) {
	for _, kind := range wedges() {
		t.Run(string(kind), func(t *testing.T) { seenThroughImpatience(t, kind) })
	}
}

func seenThroughImpatience(t *testing.T, kind fakellama.Kind) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: kind, AfterTokens: 1}}})
		// One look at /slots takes a second at most. The pause is longer, so that
		// the watcher sees it, and both together are shorter than a stall.
		const patience, pause = time.Second, 3 * time.Second / 2
		spec.StallTimeout, spec.StallGrace = 3*time.Second, 100*time.Millisecond
		c := mustStart(t, spec)
		for range 12 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := readAll(ctx, c)
			cancel()
			if err == nil {
				t.Fatal("a wedged server answered")
			}
			select {
			case <-c.Done():
				if !errors.Is(c.Err(), ErrStalled) {
					t.Errorf("it ended with %v", c.Err())
				}
				return
			case <-time.After(pause): // in which nothing runs
			}
		}
		t.Error("nobody noticed the stall")
	})
}

// A run's folder that its maker holds is left alone, whatever the pid in the
// record means here: it may be one of another container.
func TestRunOfAnotherContainer(t *testing.T) {
	dir := t.TempDir()
	run := dir + "/0123abcd"
	if err := unix.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := holdRun(run)
	if err != nil || held == nil {
		t.Fatalf("%v, %v", held, err)
	}
	if err := (record{Boot: "of another machine", Parent: 1, ParentStart: 1, Marker: newID(12)}).write(run); err != nil {
		t.Fatal(err)
	}
	if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	if err := unix.Access(run+"/"+recordName, unix.F_OK); err != nil {
		t.Errorf("the folder of a run that lives: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	nothingLeft(t, dir, "no such marker")
}
