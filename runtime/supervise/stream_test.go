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
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 21: SIGSEGV, SIGABRT, and SIGKILL as from the kernel's OOM killer, in
// mid-stream.
func TestFault21_CrashInMidStream(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGKILL, syscall.SIGABRT} {
			spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 5, Signal: int(sig)}}})
			c := mustStart(t, spec)
			got, err := readAll(t.Context(), c)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Signal != sig || exit.State != Ready {
				t.Fatalf("got %v, want an exit by %v, after %q", err, sig, got)
			}
			if n := strings.Count(got, "data: "); n != 5 {
				t.Errorf("%d events, want the 5 that were sent", n)
			}
			<-c.Done()
			if _, err := readAll(t.Context(), c); !errors.As(err, &exit) {
				t.Errorf("a request to a failed child: %v", err)
			}
		}
	})
}

// Fault 21: while several clients read, the process is killed repeatedly at
// random moments. Each client receives the whole answer, or its beginning and the
// cause of the exit: no token is lost, doubled, or another request's.
func TestFault21_NoTokenLostOrDoubled(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		const clients, deaths = 4, 3
		spec := fakeSpec(t, roleServer, fakellama.Script{
			Reply: strings.Repeat("one two three four five six seven. ", 6), TokenDelay: time.Millisecond, Slots: clients,
		})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxFailures: 10 * deaths}
		c := mustStart(t, spec)
		events, unsubscribe := c.Subscribe()
		defer unsubscribe()
		want, done, err := readEvents(t.Context(), c)
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
					got, done, err := readEvents(t.Context(), c)
					checkPieces(t, want, got, done, err)
					if done {
						whole.Add(1)
					} else {
						cut.Add(1)
					}
				}
			})
		}
		for range deaths {
			time.Sleep(rand.N(60 * time.Millisecond)) // at a random point of the streams
			pid := c.Pid()
			if pid <= 0 {
				t.Fatalf("ready without a process: %d", pid)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
			waitForState(t, events, Ready)
		}
		close(stop)
		readers.Wait()
		t.Logf("%d whole answers, %d cut by an exit", whole.Load(), cut.Load())
		got, done, err := readEvents(t.Context(), c) // the last process goes on
		if checkPieces(t, want, got, done, err); !done {
			t.Errorf("%d events and no final one although the process runs", len(got))
		}
		if n := c.ActiveRequests(); n != 0 {
			t.Errorf("%d requests count as running", n)
		}
	})
}

// streamEvent is one event of a stream.
type streamEvent struct {
	Content string  `json:"content"`
	Tokens  []int32 `json:"tokens"`
	Stop    bool    `json:"stop"`
}

// readEvents reads one completion event by event. done reports that the final event
// arrived. An event that was cut off does not count.
func readEvents(ctx context.Context, c *Child) (got []streamEvent, done bool, err error) {
	res, err := postCompletion(ctx, c)
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
			var p streamEvent
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

// checkPieces compares one answer with the undisturbed one.
func checkPieces(t *testing.T, want, got []streamEvent, done bool, err error) {
	t.Helper()
	same := func(a, b streamEvent) bool {
		return a.Content == b.Content && a.Stop == b.Stop && slices.Equal(a.Tokens, b.Tokens)
	}
	var exit *ExitError
	switch {
	case len(got) > len(want) || !slices.EqualFunc(got, want[:len(got)], same):
		t.Errorf("%d events that are not a prefix of the answer: %+v", len(got), got)
	case done && len(got) != len(want):
		t.Errorf("%d of %d events and the final one", len(got), len(want))
	case !done && (!errors.As(err, &exit) || exit.Signal != syscall.SIGKILL):
		t.Errorf("%d of %d events and no final one: %v, want the exit by SIGKILL", len(got), len(want), err)
	}
}

// Fault 28: the process runs on. A cut connection is an error, not the end of the
// stream, and no exit is reported.
func TestFault28_CutWhileRunning(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{
			{Kind: fakellama.KindCutRune, AfterTokens: 2, Request: 1}, {Kind: fakellama.KindCut, AfterBytes: 77, Request: 2},
		}}))
		for range 2 {
			_, err := readAll(t.Context(), c)
			var exit *ExitError
			if !errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &exit) {
				t.Fatalf("got %v, want io.ErrUnexpectedEOF and no exit", err)
			}
		}
		if got, err := readAll(t.Context(), c); err != nil || !strings.Contains(got, `"stop":true`) || c.State() != Ready {
			t.Errorf("the next request: %v, state %s", err, c.State())
		}
	})
}

// Fault 29: the client leaves and its slot becomes free.
func TestFault29_ClientCancels(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		res, err := postCompletion(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if !slotBusy(t, c) {
			t.Fatal("no slot is busy while a stream runs")
		}
		begin := time.Now()
		cancel()
		poll.Until(t, "the slot to be free", func() bool { return !slotBusy(t, c) })
		t.Logf("free after %s", time.Since(begin).Round(time.Millisecond))
		_ = res.Body.Close()
		poll.Until(t, "the request to end", func() bool { return c.ActiveRequests() == 0 })
	})
}

func slotBusy(t *testing.T, c *Child) bool {
	t.Helper()
	slots, err := readSlots(t.Context(), &http.Client{Transport: c.current.probeTransport}, c.baseURL, c.key)
	if err != nil {
		t.Fatal(err)
	}
	_, busy := digestOf(slots)
	return busy
}
