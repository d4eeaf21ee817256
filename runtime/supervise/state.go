package supervise

import (
	"log/slog"
	"sync"
	"time"
)

// State is where a child is in its life; the package comment has the diagram.
type State uint8

// The states of a child.
const (
	Stopped State = iota
	Starting
	Loading
	Ready
	Stalled
	Stopping
	Failed
)

// String gives the state's name in lower case.
func (s State) String() string {
	switch s {
	case Stopped:
		return "stopped"
	case Starting:
		return "starting"
	case Loading:
		return "loading"
	case Ready:
		return "ready"
	case Stalled:
		return "stalled"
	case Stopping:
		return "stopping"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Final reports whether no further change follows.
func (s State) Final() bool { return s == Stopped || s == Failed }

// Event is one change of state, or news within Loading.
type Event struct {
	Time     time.Time
	From, To State
	// Cause is why, where something went wrong; nil for a change that was meant.
	Cause error
	// Note says in a few words what happened.
	Note string
	// Pid is the process at that moment, 0 where there is none.
	Pid int
	// Attempt counts the processes started for this child, from 1.
	Attempt int
	// Progress is how much of the model is loaded, 0 to 1, where the server
	// tells it; it is only meaningful while To is Loading.
	Progress float64
	// Missed counts earlier events that this subscriber was too slow to take.
	Dropped int
}

// subscriberDepth is how many events wait for a subscriber before the oldest
// ones are given up; a child changes state a handful of times in its life.
const subscriberDepth = 64

// hub hands events to subscribers without ever waiting for one.
type hub struct {
	mu     sync.Mutex
	subs   map[chan Event]int // how many events each has missed
	closed bool
	log    *slog.Logger
}

func newHub(log *slog.Logger) *hub { return &hub{subs: map[chan Event]int{}, log: log} }

func (h *hub) subscribe() (<-chan Event, func()) {
	ch := make(chan Event, subscriberDepth)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(ch)
		return ch, func() {}
	}
	h.subs[ch] = 0
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.subs[ch]; ok {
			delete(h.subs, ch)
			close(ch)
		}
	}
}

func (h *hub) publish(e Event) {
	level := slog.LevelInfo
	switch {
	case e.To == Failed:
		level = slog.LevelError
	case e.To == Stalled || e.Cause != nil:
		level = slog.LevelWarn
	case e.From == e.To:
		level = slog.LevelDebug
	}
	attrs := []any{"from", e.From.String(), "to", e.To.String(), "pid", e.Pid, "attempt", e.Attempt}
	if e.To == Loading && e.Progress > 0 {
		attrs = append(attrs, "progress", e.Progress)
	}
	if e.Note != "" {
		attrs = append(attrs, "note", e.Note)
	}
	if e.Cause != nil {
		attrs = append(attrs, "cause", e.Cause.Error())
	}
	h.log.Log(noContext, level, "llama-server state", attrs...)

	h.mu.Lock()
	defer h.mu.Unlock()
	for ch, missed := range h.subs {
		e.Dropped = missed
		select {
		case ch <- e:
			h.subs[ch] = 0
			continue
		default:
		}
		select { // full: the oldest gives way
		case <-ch:
			missed++
		default:
		}
		e.Dropped = missed
		select {
		case ch <- e:
			h.subs[ch] = 0
		default:
			h.subs[ch] = missed + 1
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for ch := range h.subs {
		close(ch)
	}
	clear(h.subs)
}
