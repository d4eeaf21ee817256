package supervise

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A request that its caller has left must free its slot. llama-server v0.5.0 looks
// whether the connection is closed only after a second in which no result of any
// request arrived (recv_with_timeout in server-queue.cpp starts its wait again at
// each notification): beside the stream of another request, never. A stream notices
// it when a token is written, so its prompt is computed to the end first. Nothing in
// llama-server's API cancels a request of another connection. A pause of the process
// for a little longer than that second makes all its waits end, so that it looks.
// Asking for a stream for every caller and putting the answer together again would
// change answers: the log probabilities and tool calls of a stream are not those of
// a whole answer.
const (
	// pauseTime is longer than HTTP_POLLING_SECONDS (server-common.h).
	pauseTime = 1100 * time.Millisecond
	// slotsTimeout limits the wait for an answer of /slots, which may take as long as a
	// batch of a prompt.
	slotsTimeout = time.Minute
	// maxAbandonedChecks limits how often the slots are looked at after a request was
	// abandoned.
	maxAbandonedChecks = 5
)

// abandonment is what a process keeps about requests whose callers have left.
type abandonment struct {
	mu       sync.Mutex
	checking bool // pauseUntilFree runs
	again    bool // and has to begin again
}

// begin reports whether the caller has to check. If somebody already does, that
// check begins again when it ends.
func (a *abandonment) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.checking {
		a.again = true
		return false
	}
	a.checking = true
	return true
}

// end ends a check and reports whether another has to follow.
func (a *abandonment) end() (again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	again, a.again = a.again, false
	a.checking = again
	return again
}

// freeSlots pauses a process that keeps the slot of an abandoned request for longer
// than Spec.abandonedAfter. It returns at once.
func (c *Child) freeSlots(p *process) {
	if c.spec.abandonedAfter <= 0 || p.hasExited() || !p.abandoned.begin() {
		return
	}
	go func() {
		for {
			c.pauseUntilFree(p)
			if !p.abandoned.end() || p.hasExited() {
				return
			}
		}
	}()
}

// pauseUntilFree pauses a process if it runs more tasks than there are answers to
// wait for, and repeats that until it does not, or until maxAbandonedChecks.
func (c *Child) pauseUntilFree(p *process) {
	requests, step := p.load.requests.Load(), c.spec.abandonedAfter/2
	for range maxAbandonedChecks {
		if !c.sleep(p, step) {
			return
		}
		if p.load.inFlight.Load() == 0 && p.load.requests.Load() == requests {
			return // without other results llama-server has looked
		}
		before, awaited, err := c.tasks(p)
		if err != nil || len(before) == 0 {
			return
		}
		if !c.sleep(p, step) {
			return
		}
		after, _, err := c.tasks(p)
		if err != nil {
			return
		}
		kept := int64(0)
		for task := range before {
			if after[task] {
				kept++
			}
		}
		if kept <= awaited {
			continue
		}
		c.spec.Log.Info("llama-server is paused, so that it ends requests whose callers have left", "tasks", kept)
		c.pause(p, pauseTime)
		if !c.sleep(p, c.spec.pauseInterval) {
			return
		}
	}
}

// sleep waits for d. It returns false if the process exits or is asked to stop
// meanwhile.
func (c *Child) sleep(p *process, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.stop:
	case <-p.exited:
	}
	return false
}

// tasks returns the tasks that the process computes, and how many answers its
// callers wait for.
func (c *Child) tasks(p *process) (tasks map[int64]bool, awaited int64, err error) {
	awaited = p.load.answers.Load()
	ctx, cancel := context.WithTimeout(context.Background(), slotsTimeout)
	defer cancel()
	slots, err := readSlots(ctx, &http.Client{Transport: p.probeTransport}, c.baseURL, c.key)
	if err != nil {
		return nil, 0, err
	}
	tasks = map[int64]bool{}
	for _, s := range slots {
		if s.Processing {
			tasks[s.Task] = true
		}
	}
	return tasks, awaited, nil
}

// pause stops a process for d, if it is ready, and lets it continue.
func (c *Child) pause(p *process, d time.Duration) {
	c.mu.Lock()
	ready := c.current == p && c.state == Ready
	c.mu.Unlock()
	if !ready {
		return
	}
	p.signal(unix.SIGSTOP)
	defer p.signal(unix.SIGCONT)
	c.sleep(p, d)
}
