package supervise

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// State is a child's state; the package comment has the diagram.
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

// String returns the state's name in lower case.
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

// Event is one change of state, or an update of the load progress.
type Event struct {
	Time     time.Time
	From, To State
	// Cause is the error that led to the change; nil for an intended change.
	Cause error
	// Note describes the change in a few words.
	Note string
	// Pid is the process at that moment, 0 if there is none.
	Pid int
	// Attempt counts the processes started for this child, from 1.
	Attempt int
	// Progress is how much of the model is loaded, 0 to 1, if the server reports it.
	// It is meaningful only while To is Loading.
	Progress float64
	// Dropped counts earlier events that were dropped because this subscriber was
	// too slow.
	Dropped int
}

// subscriberDepth is how many events are queued for a subscriber before the oldest
// are dropped. A child changes its state a handful of times.
const subscriberDepth = 64

// hub sends events to subscribers and never blocks on one.
type hub struct {
	mu     sync.Mutex
	subs   map[chan Event]int // how many events were dropped for each
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
	h.log.Log(logContext, level, "llama-server state", attrs...)

	h.mu.Lock()
	defer h.mu.Unlock()
	for ch, dropped := range h.subs {
		e.Dropped = dropped
		select {
		case ch <- e:
			h.subs[ch] = 0
			continue
		default:
		}
		select { // full: drop the oldest
		case <-ch:
			dropped++
		default:
		}
		e.Dropped = dropped
		select {
		case ch <- e:
			h.subs[ch] = 0
		default:
			h.subs[ch] = dropped + 1
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

// String describes the process without its environment.
func (d Diagnosis) String() string {
	return fmt.Sprintf("llama-server (%s, process %d, attempt %d, %s)", d.State, d.Pid, d.Attempt, d.Addr)
}

// LogValue implements slog.LogValuer, without the environment.
func (d Diagnosis) LogValue() slog.Value {
	return slog.GroupValue(slog.String("state", d.State.String()), slog.Int("pid", d.Pid), slog.Int("attempt", d.Attempt), slog.String("addr", d.Addr))
}

// Diagnosis is what a person needs to run the same program by hand.
type Diagnosis struct {
	// Argv is the whole command line, Dir its working directory.
	Argv []string
	Dir  string
	// Env is the environment with the key replaced. RemovedEnv names the variables
	// of this process that the child does not inherit.
	Env        []string
	RemovedEnv []string
	// FlagNotes lists the arguments that Flags dropped or renamed, and why.
	FlagNotes []string
	State     State
	Pid       int
	Attempt   int
	Addr      string
	Log       []string
}
