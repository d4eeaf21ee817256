package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minPoll is the shortest time between two looks at /health, which a line
	// of output provokes; maxPoll the longest while starting.
	minPoll = time.Millisecond
	maxPoll = 50 * time.Millisecond
)

// news is what the child's output tells while it starts.
type news struct {
	mu       sync.Mutex
	progress float64
	last     time.Time // of the last state line
	spoke    bool
	onSpeak  chan struct{}
	wake     chan struct{} // capacity 1: a look is worth while
	urgent   chan struct{} // capacity 1: it is at once
}

func newNews(tail *logTail) *news {
	n := &news{wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
	tail.onLine = n.line
	tail.onState = n.state
	return n
}

// line takes a line of the log. Those that llama_server in
// tools/server/server.cpp writes when it has become ready are worth an immediate
// look; what they say is not relied on.
func (n *news) line(text string) {
	if strings.Contains(text, "model loaded") || strings.Contains(text, "listening on") {
		poke(n.urgent)
	}
	poke(n.wake)
}

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// rest waits until the next look is due, by time or because it is urgent.
func (n *news) rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-n.urgent:
	case <-ctx.Done():
	}
}

// speaks says what to close once the program told its state.
func (n *news) speaks(ch chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onSpeak = ch
	if n.spoke {
		close(ch)
	}
}

// state takes a state line's JSON. A line that cannot be read counts as a sign
// of life and nothing more.
func (n *news) state(raw string) {
	var msg struct {
		State   string `json:"state"`
		Payload struct {
			Stages  []string `json:"stages"`
			Current string   `json:"current"`
			Value   float64  `json:"value"`
		} `json:"payload"`
	}
	err := json.Unmarshal([]byte(raw), &msg)
	n.mu.Lock()
	n.last = time.Now()
	if err == nil && msg.State == "loading" {
		stage, stages := 0, max(1, len(msg.Payload.Stages))
		for i, s := range msg.Payload.Stages {
			if s == msg.Payload.Current {
				stage = i
			}
		}
		v := (float64(stage) + min(max(msg.Payload.Value, 0), 1)) / float64(stages)
		n.progress = max(n.progress, v)
	}
	// Only "ready" comes with the thread that reads the exit line.
	if err == nil && msg.State == "ready" && !n.spoke {
		n.spoke = true
		if n.onSpeak != nil {
			close(n.onSpeak)
		}
	}
	n.mu.Unlock()
	poke(n.wake)
}

// told is when the last state line came: a server that wakes from sleep tells
// how far it has loaded again.
func (n *news) told() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

func (n *news) loaded() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.progress
}

// startup follows the process from refused over 503 to 200. It gives nil when
// the process is ready, else how the run ended.
func (c *Child) startup(p *process, n *news) *outcome {
	ctx, cancel := c.untilStop()
	defer cancel()
	limit := time.NewTimer(c.spec.StartTimeout)
	defer limit.Stop()
	inAll := time.NewTimer(10 * c.spec.StartTimeout)
	defer inAll.Stop()
	began, alive := time.Now(), time.Now()
	interval := minPoll
	var imposed error
	for {
		asked := time.Now()
		status, err := c.healthy(ctx, p)
		switch {
		case status == http.StatusOK:
			p.ready = time.Now()
			c.change(Ready, nil, "ready after "+p.ready.Sub(began).Round(time.Millisecond).String())
			return nil
		case status == http.StatusServiceUnavailable:
			c.loading(n.loaded())
		case status != 0:
			err = fmt.Errorf("%w: /health says %d, which is neither ready nor loading", ErrWrongPeer, status)
			fallthrough
		case errors.Is(err, ErrWrongPeer):
			// The child may be about to take its place, or to end: a second
			// must do.
			if imposed == nil {
				limit.Reset(min(time.Second, c.spec.StartTimeout))
			}
			imposed = err
		}
		wait := time.NewTimer(interval)
		interval = min(interval*3/2+1, maxPoll)
		select {
		case <-p.exited:
			wait.Stop()
			return &outcome{err: c.exitError(p, c.State())}
		case <-c.stop:
			wait.Stop()
			c.shutDown(p, false)
			return &outcome{stopped: true}
		case <-limit.C:
			wait.Stop()
			return &outcome{err: c.giveUp(p, imposed, time.Since(alive))}
		case <-inAll.C:
			wait.Stop()
			return &outcome{err: c.giveUp(p, imposed, time.Since(began))}
		case <-n.wake:
			// A line is a sign of progress: the clock starts anew.
			wait.Stop()
			alive = time.Now()
			if imposed == nil {
				limit.Reset(c.spec.StartTimeout)
			}
			n.rest(ctx, minPoll-time.Since(asked))
		case <-wait.C:
		}
	}
}

// loading notes that the server answers and how far it is.
func (c *Child) loading(progress float64) {
	c.mu.Lock()
	state, known := c.state, c.progress
	c.progress = max(known, progress)
	c.mu.Unlock()
	switch {
	case state != Loading:
		c.change(Loading, nil, "loading the model")
	case progress > known:
		c.change(Loading, nil, fmt.Sprintf("loaded %.0f %%", 100*progress))
	}
}

// giveUp ends a process that does not become ready.
func (c *Child) giveUp(p *process, imposed error, after time.Duration) error {
	state := c.State()
	p.signal(unix.SIGKILL)
	<-p.exited
	if imposed != nil {
		return fmt.Errorf("start llama-server: %w", imposed)
	}
	return &HangError{
		Kind: ErrStartTimeout, After: after, State: state, Pid: p.pid, Log: p.tail.last(),
		Remedy: "a large model on a slow disk needs a longer start timeout; else look at the last lines",
	}
}
