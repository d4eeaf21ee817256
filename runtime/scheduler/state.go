package scheduler

import (
	"time"
)

// Place is a memory that models are loaded into. Sizes are in bytes.
type Place struct {
	// ID names the place, such as the PCI address of a card, or [Host].
	ID string
	// Total is its size. Free is what the kernel says is free now, with what our
	// models hold already taken off.
	Total, Free uint64
	// Margin is what stays free when a model is loaded.
	Margin uint64
	// Yield is the free memory below which other programs need the place: idle
	// models are unloaded then. 0: never.
	Yield uint64
	// Mapped says that models are mapped from files, so that Free contains memory
	// that they hold. What they hold is subtracted from Free.
	Mapped bool
}

// Host is the ID of the place that stands for main memory.
const Host = "host"

// Need is the memory in bytes that a model takes on a place.
type Need struct {
	Place string
	Bytes uint64
}

// Placement is one way to place a model: what it takes on each place.
type Placement []Need

// on returns what the placement takes on a place, in bytes.
func (p Placement) on(place string) uint64 {
	var sum uint64
	for _, n := range p {
		if n.Place == place {
			sum = plus(sum, n.Bytes)
		}
	}
	return sum
}

// bytes returns what the placement takes on all places.
func (p Placement) bytes() uint64 {
	var sum uint64
	for _, n := range p {
		sum = plus(sum, n.Bytes)
	}
	return sum
}

// Spec is what the settings say about a model.
type Spec struct {
	// Pinned models are loaded without a request and never evicted.
	Pinned bool
	// IdleUnload is how long a model stays loaded without a lease; 0: no limit.
	IdleUnload time.Duration
}

// Phase is where a model is between being unloaded and being ready.
type Phase uint8

// The phases of a model.
const (
	Unloaded   Phase = iota
	Loading          // it was told to load
	Ready            // it can be used
	Restarting       // its process has failed and is being restarted
	Unloading        // it was told to unload, and its memory is not free yet
	Failed           // the last attempt to load it failed, or its process ended
)

// String returns the phase's name in lower case.
func (p Phase) String() string {
	return [...]string{"unloaded", "loading", "ready", "restarting", "unloading", "failed"}[p]
}

// Model is what is known about a model.
type Model struct {
	Spec
	// Placements are the ways to place the model, all equally good. Without any,
	// Refusal is the reason why it cannot be loaded; without that, the model has not
	// been planned yet.
	Placements []Placement
	Refusal    error

	Phase Phase
	// Held is what the model takes, or is about to take.
	Held Placement
	// Leases are the requests that use the model.
	Leases map[uint64]bool
	// Waiting is how many requests wait for the model. Only the
	// copies of Scheduler.Models have it.
	Waiting int
	// Since is when the phase began, LastUse when the last lease ended.
	Since, LastUse time.Time
	// LoadTime is how long the last load took.
	LoadTime time.Duration
	// UnloadCause is why the model was unloaded last.
	UnloadCause UnloadCause
	// Cause is why the model failed. It is not tried again before RetryAt, which
	// is later with each of Failures in a row.
	Cause    error
	Failures int
	RetryAt  time.Time
	// Retired models are no longer in the settings; they drain and go. Evict says
	// that someone asked for the model to be unloaded. A model with YieldTo drains
	// for another model, whose request has waited too long.
	Retired, Evict bool
	YieldTo        string
}

// planned reports whether the ways to place the model are known.
func (m *Model) planned() bool { return len(m.Placements) > 0 || m.Refusal != nil }

// loaded reports whether the model can be used.
func (m *Model) loaded() bool { return m.Phase == Ready || m.Phase == Restarting }

// idle reports whether the model could be unloaded without breaking a request.
func (m *Model) idle() bool { return m.Phase == Ready && len(m.Leases) == 0 }

// draining reports whether the model must not get further requests.
func (m *Model) draining() bool { return m.Retired || m.Evict || m.YieldTo != "" }

// Request waits for a model.
type Request struct {
	ID uint64
	// Name is the name that the client used; State.Names has its model.
	Name string
	// Client names the one who asks. Clients with the same priority take turns.
	Client string
	// Priority orders requests; higher ones go first.
	Priority int
	Arrived  time.Time
	// Deadline is when the request is given up; zero: never.
	Deadline time.Time
	// Warm says that the model is to be loaded, and that no lease is wanted.
	Warm bool
	// Err is why the request must be rejected, set by an event.
	Err error
}

// Limits are the scheduler's times and sizes.
type Limits struct {
	// MinResidency is how long a model stays before another model may evict it.
	MinResidency time.Duration
	// Patience is how long a request waits before busy models drain for it.
	Patience time.Duration
	// Queue is how many requests may wait for one model. Where it is full, a request
	// takes the place of one of the client that has the most.
	Queue int
	// MinBackoff and MaxBackoff limit the wait before a failed model is tried
	// again, which doubles with each failure in a row.
	MinBackoff, MaxBackoff time.Duration
	// Poll is how often the places are read while a model is loaded; 0: never.
	Poll time.Duration
}

// State is all that a decision depends on, besides the time.
type State struct {
	Limits Limits
	Places []Place
	// Models are the models by their keys, Names the keys by the names that
	// clients use.
	Models map[string]*Model
	Names  map[string]string
	// Queue are the waiting requests in the order of their arrival.
	Queue []*Request

	without rule // the rule that tests remove
}

// NewState returns the state without models.
func NewState(l Limits) *State {
	return &State{Limits: l, Models: map[string]*Model{}, Names: map[string]string{}}
}

// model returns the model that a request waits for, nil for an unknown name.
func (s *State) model(r *Request) *Model { return s.Models[s.Names[r.Name]] }

// waiting returns how many requests wait for a model.
func (s *State) waiting(key string) int {
	n := 0
	for _, r := range s.Queue {
		if s.Names[r.Name] == key {
			n++
		}
	}
	return n
}

// crowding returns the newest of the least urgent requests that wait for a model, of
// the client that has the most of them, if that client would still have no fewer than
// another one that adds a request; nil otherwise.
func (s *State) crowding(key, client string) *Request {
	waits := map[string]int{}
	var most string
	for _, r := range s.Queue {
		if s.Names[r.Name] != key || r.Err != nil {
			continue
		}
		if waits[r.Client]++; waits[r.Client] > waits[most] {
			most = r.Client
		}
	}
	if waits[most] <= waits[client]+1 {
		return nil
	}
	var last *Request
	for _, r := range s.Queue {
		if s.Names[r.Name] == key && r.Client == most && r.Err == nil && (last == nil || r.Priority <= last.Priority) {
			last = r
		}
	}
	return last
}

// place returns a place by its ID.
func (s *State) place(id string) (Place, bool) {
	for _, p := range s.Places {
		if p.ID == id {
			return p, true
		}
	}
	return Place{}, false
}

// NeedsMemory reports whether the next decision depends on free memory.
func (s *State) NeedsMemory(now time.Time) bool {
	for _, r := range s.Queue {
		if m := s.model(r); m != nil && !m.loaded() {
			return true
		}
	}
	for _, m := range s.Models {
		if m.Pinned && !m.Retired && !m.loaded() && !now.Before(m.RetryAt) {
			return true
		}
	}
	return false
}

// rule names a rule of Decide that a test removes, to see that others notice.
type rule uint8

const (
	everyRule rule = iota
	ruleBudget
	ruleMargin
	ruleFlux
	ruleBusy
	ruleResidency
	rulePinned
	ruleStarving
	ruleLeave
	ruleDeadline
	ruleBackoff
	ruleRefuse
	ruleForeign
	ruleRetired
	ruleDrain
	ruleResume
	ruleIdle
	ruleYield
	ruleTurns
	ruleCrowding
	rulesEnd
)

// has reports whether a rule is in force.
func (s *State) has(r rule) bool { return s.without != r }

// plus adds without an overflow.
func plus(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return ^uint64(0)
}

// less subtracts without going below zero.
func less(a, b uint64) uint64 {
	if b >= a {
		return 0
	}
	return a - b
}
