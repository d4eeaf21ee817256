package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minPoll is the shortest time between two checks of /health, which a line of
	// output triggers. maxPoll is the longest while the child starts.
	minPoll = time.Millisecond
	maxPoll = 50 * time.Millisecond
	// wrongPeerGrace is how long a process may answer in the child's place before
	// the start fails: the child may be about to replace it, or to exit.
	wrongPeerGrace = time.Second
	// maxStartFactor is how many StartTimeouts a start may take in all.
	maxStartFactor = 10
)

// startup follows the process from a refused connection over status 503 to 200.
// It returns nil when the process is ready, else how the run ended.
func (c *Child) startup(p *process, events *startupEvents) *runResult {
	ctx, cancel := c.stopContext()
	defer cancel()
	limit := time.NewTimer(c.spec.StartTimeout)
	defer limit.Stop()
	total := time.NewTimer(maxStartFactor * c.spec.StartTimeout)
	defer total.Stop()
	began, lastSign := time.Now(), time.Now()
	interval := minPoll
	var wrongPeer error
	for {
		c.limitMemory(p)
		asked := time.Now()
		status, err := c.checkHealth(ctx, p)
		switch {
		case status == http.StatusOK:
			p.readyAt = time.Now()
			c.setState(Ready, nil, "ready after "+p.readyAt.Sub(began).Round(time.Millisecond).String())
			return nil
		case status == http.StatusServiceUnavailable:
			c.reportLoading(events.loadProgress())
		case status != 0:
			err = fmt.Errorf("%w: /health answers %d, which is neither ready nor loading", ErrWrongPeer, status)
			fallthrough
		case errors.Is(err, ErrWrongPeer):
			if wrongPeer == nil {
				limit.Reset(min(wrongPeerGrace, c.spec.StartTimeout))
			}
			wrongPeer = err
		}
		wait := time.NewTimer(interval)
		interval = min(interval*3/2+1, maxPoll)
		select {
		case <-p.exited:
			wait.Stop()
			return &runResult{err: c.exitError(p, c.State())}
		case <-c.stop:
			wait.Stop()
			c.shutDown(p, false)
			return &runResult{stopped: true}
		case <-limit.C:
			wait.Stop()
			return &runResult{err: c.killStart(p, wrongPeer, time.Since(lastSign))}
		case <-total.C:
			wait.Stop()
			return &runResult{err: c.killStart(p, wrongPeer, time.Since(began))}
		case <-events.wake:
			// A line is a sign of progress: the limit starts again.
			wait.Stop()
			lastSign = time.Now()
			if wrongPeer == nil {
				limit.Reset(c.spec.StartTimeout)
			}
			events.waitUrgent(ctx, minPoll-time.Since(asked))
		case <-wait.C:
		}
	}
}

// checkHealth asks a process for /health once and returns the status, 0 if
// nobody answers.
func (c *Child) checkHealth(ctx context.Context, p *process) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.baseURL+"/health", http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := p.probeTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return 0, err
	}
	var body struct {
		Status string `json:"status"`
	}
	if res.StatusCode == http.StatusOK && (json.Unmarshal(raw, &body) != nil || body.Status != "ok") {
		return 0, fmt.Errorf("%w: /health answers %.60q, which llama-server does not", ErrWrongPeer, raw)
	}
	return res.StatusCode, nil
}

// reportLoading publishes that the server loads its model, and how far it is.
func (c *Child) reportLoading(progress float64) {
	c.mu.Lock()
	state, reported := c.state, c.progress
	c.progress = max(reported, progress)
	c.mu.Unlock()
	switch {
	case state != Loading:
		c.setState(Loading, nil, "loading the model")
	case progress > reported:
		c.setState(Loading, nil, fmt.Sprintf("loaded %.0f %%", 100*progress))
	}
}

// killStart kills a process that does not become ready.
func (c *Child) killStart(p *process, wrongPeer error, after time.Duration) error {
	state := c.State()
	p.signal(unix.SIGKILL)
	<-p.exited
	if wrongPeer != nil {
		return fmt.Errorf("start llama-server: %w", wrongPeer)
	}
	return &HangError{
		Kind: ErrStartTimeout, After: after, State: state, Pid: p.pid, Log: p.tail.last(),
		Remedy: "a large model on a slow disk needs a longer start timeout; otherwise read the last lines",
	}
}

// startupEvents is what the child's output reports while it starts, and later that its
// device may be lost.
type startupEvents struct {
	mu        sync.Mutex
	progress  float64
	lastState time.Time // when the last state line arrived
	isReady   bool
	onReady   chan struct{}
	wake      chan struct{} // capacity 1: a check is worthwhile
	urgent    chan struct{} // capacity 1: a check is worthwhile at once
	lost      chan struct{} // capacity 1: the device may be lost
}

func newStartupEvents(tail *logTail) *startupEvents {
	e := &startupEvents{wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), lost: make(chan struct{}, 1)}
	tail.onLine = e.handleLine
	tail.onState = e.handleState
	return e
}

// handleLine handles a line of the log. The lines that llama_server in
// tools/server/server.cpp writes when it has become ready trigger an immediate
// check. They only trigger it: /health decides.
func (e *startupEvents) handleLine(text string) {
	if strings.Contains(text, "model loaded") || strings.Contains(text, "listening on") {
		notify(e.urgent)
	}
	if lostLine.MatchString(text) {
		notify(e.lost)
	}
	notify(e.wake)
}

func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// waitUrgent waits for d or until a check is urgent.
func (e *startupEvents) waitUrgent(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-e.urgent:
	case <-ctx.Done():
	}
}

// closeWhenReady closes ch once the program has reported that it is ready.
func (e *startupEvents) closeWhenReady(ch chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onReady = ch
	if e.isReady {
		close(ch)
	}
}

// handleState handles the JSON of a state line. A line that cannot be parsed
// counts as a sign of life and nothing more.
func (e *startupEvents) handleState(raw string) {
	var msg struct {
		State   string `json:"state"`
		Payload struct {
			Stages  []string `json:"stages"`
			Current string   `json:"current"`
			Value   float64  `json:"value"`
		} `json:"payload"`
	}
	err := json.Unmarshal([]byte(raw), &msg)
	e.mu.Lock()
	e.lastState = time.Now()
	if err == nil && msg.State == "loading" {
		stage, stages := 0, max(1, len(msg.Payload.Stages))
		for i, s := range msg.Payload.Stages {
			if s == msg.Payload.Current {
				stage = i
			}
		}
		v := (float64(stage) + min(max(msg.Payload.Value, 0), 1)) / float64(stages)
		e.progress = max(e.progress, v)
	}
	// Only a server that reports "ready" runs the thread that reads the exit command.
	if err == nil && msg.State == "ready" && !e.isReady {
		e.isReady = true
		if e.onReady != nil {
			close(e.onReady)
		}
	}
	e.mu.Unlock()
	notify(e.wake)
}

// lastStateLine returns when the last state line arrived. A server that wakes
// from sleep reports its load progress again.
func (e *startupEvents) lastStateLine() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lastState
}

func (e *startupEvents) loadProgress() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress
}
