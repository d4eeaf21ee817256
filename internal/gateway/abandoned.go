package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// A request whose client has left must free its slot. llama-server v0.5.0 looks
// whether the connection is closed only after a second in which no result of any
// request arrived (recv_with_timeout in server-queue.cpp starts its wait again at
// each notification): beside a stream, never. Nothing in its API cancels a request of
// another connection. A pause of the process for a little longer than that second
// makes all its waits end, so that it looks. Asking for a stream for every client and
// putting the answer together again would change answers: the log probabilities and
// tool calls of a stream are not those of a whole answer.
const (
	// pauseTime is longer than HTTP_POLLING_SECONDS (server-common.h).
	pauseTime = 1100 * time.Millisecond
	// maxSlotList is the largest accepted answer of llama-server's /slots.
	maxSlotList = 64 << 20
)

// pauser is a Backend whose process can be paused. *supervise.Child is one.
type pauser interface {
	// Pause stops the process for d.
	Pause(d time.Duration)
}

// begin counts a request that has a slot.
func (s *servedModel) begin(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[x] = struct{}{}
}

// end ends that.
func (s *servedModel) end(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, x)
}

// freeSlots pauses the process of a model where a request that was abandoned keeps
// its slot for longer than Limits.Abandoned. It returns at once.
func (g *Gateway) freeSlots(b Backend, s *servedModel) {
	p, ok := b.(pauser)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freeing {
		s.again = true
		return
	}
	s.freeing = true
	g.running.Go(func() {
		for again := true; again; {
			g.pauseUntilFree(b, p, s)
			s.mu.Lock()
			again = s.again && g.closing.Err() == nil
			s.again, s.freeing = false, again
			s.mu.Unlock()
		}
	})
}

// pauseUntilFree pauses the process if more tasks than those of clients that wait
// run for all of Limits.Abandoned, and repeats that until there are none.
func (g *Gateway) pauseUntilFree(b Backend, p pauser, s *servedModel) {
	for {
		before, err := busyTasks(g.closing, b)
		if err != nil || len(before) == 0 {
			return // no process, or nothing to free
		}
		waiting := s.clients()
		if !g.sleep(g.limits.Abandoned) {
			return
		}
		after, err := busyTasks(g.closing, b)
		if err != nil {
			return
		}
		kept := int64(0)
		for task := range before {
			if after[task] {
				kept++
			}
		}
		if kept <= s.answers(waiting) {
			return
		}
		g.log.Info("llama-server is paused, so that it ends requests whose clients have left", "tasks", kept)
		p.Pause(pauseTime)
		if !g.sleep(g.limits.PauseInterval) {
			return
		}
	}
}

// sleep waits, and reports false if the gateway is closed meanwhile.
func (g *Gateway) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-g.closing.Done():
		return false
	}
}

// clients returns the requests that have a slot now.
func (s *servedModel) clients() []*exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*exchange
	for x := range s.active {
		list = append(list, x)
	}
	return list
}

// answers returns how many tasks those of the requests have that still run.
func (s *servedModel) answers(list []*exchange) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, x := range list {
		if _, ok := s.active[x]; ok {
			n += max(x.answers, 1)
		}
	}
	return n
}

// busyTasks returns the tasks that llama-server's slots compute.
func busyTasks(ctx context.Context, b Backend) (map[int64]bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.BaseURL()+"/slots", http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := b.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	var slots []struct {
		Task       int64 `json:"id_task"`
		Processing bool  `json:"is_processing"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxSlotList)).Decode(&slots); err != nil {
		return nil, err
	}
	tasks := map[int64]bool{}
	for _, slot := range slots {
		if slot.Processing {
			tasks[slot.Task] = true
		}
	}
	return tasks, nil
}
