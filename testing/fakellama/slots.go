package fakellama

import (
	"context"
	"sync"
)

// slots manages the slots that completions run in.
type slots struct {
	free chan int

	mu    sync.Mutex
	state []slotState
	tasks int
}

type slotState struct {
	processing bool
	task       int
	prompt     []int32
	cached     int
	decoded    int
	remain     int
}

func newSlots(n int) *slots {
	s := &slots{free: make(chan int, n), state: make([]slotState, n)}
	for i := range n {
		s.free <- i
	}
	return s
}

// acquire waits for a slot and begins a task in it. It returns the slot and the
// number of cached tokens of the prompt.
func (s *slots) acquire(ctx context.Context, prompt []int32, limit int) (id, cached int, err error) {
	select {
	case id = <-s.free:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for cached < len(prompt)-1 && cached < len(s.state[id].prompt) && s.state[id].prompt[cached] == prompt[cached] {
		cached++ // the last token is always computed, its logits are needed
	}
	s.tasks++
	s.state[id] = slotState{processing: true, task: s.tasks, prompt: prompt, cached: cached, remain: limit}
	return id, cached, nil
}

func (s *slots) decoded(id, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state[id].decoded = n
	if s.state[id].remain > 0 {
		s.state[id].remain--
	}
}

func (s *slots) release(id int) {
	s.mu.Lock()
	s.state[id].processing = false
	s.mu.Unlock()
	s.free <- id
}

func (s *slots) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, st := range s.state {
		if st.processing {
			n++
		}
	}
	return n
}

func (s *slots) snapshot() []slotState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]slotState(nil), s.state...)
}

// wrap returns the slot of an id. Every id is valid, as in get_slot_by_id of
// server-context.cpp, which takes the remainder of the unsigned id.
func (s *slots) wrap(id int) int {
	return int(uint64(id) % uint64(len(s.state)))
}

// swap replaces the tokens of an idle slot and returns the old ones.
func (s *slots) swap(id int, with []int32) (held []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id = s.wrap(id)
	held, s.state[id].prompt = s.state[id].prompt, with
	return held
}
