package supervise

import (
	"net/http"
	"sync"
	"time"
)

// pending is a request without a response.
type pending struct {
	work   Work
	sent   time.Time // zero while it is being sent
	queued time.Time // when it was last possible that it waited for a slot
	left   bool      // its caller has left, and llama-server has not closed the connection
}

// unanswered holds the requests that have no response yet. One whose caller has left
// stays until llama-server closes its connection.
type unanswered struct {
	mu       sync.Mutex
	requests map[*http.Request]*pending
}

// add adds a request that is being sent. It counts from the call of the function
// that it returns, after its body was sent: a caller may take long for that.
func (u *unanswered) add(req *http.Request) (sent func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.requests == nil {
		u.requests = map[*http.Request]*pending{}
	}
	p := &pending{work: workOf(req.Context())}
	u.requests[req] = p
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		p.sent = time.Now()
		p.queued = p.sent
	}
}

// remove removes a request that has a response, or none any more.
func (u *unanswered) remove(req *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.requests, req)
}

// leave notes that the caller of a request has left.
func (u *unanswered) leave(req *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.requests[req]; p != nil {
		p.left = true
	}
}

// any reports whether there is a request.
func (u *unanswered) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests) > 0
}

// oldest returns when the oldest request was sent, or now if there is none.
func (u *unanswered) oldest(now time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.requests {
		if !p.sent.IsZero() && p.sent.Before(now) {
			now = p.sent
		}
	}
	return now
}

// postpone moves what is due by the time during which nobody looked.
func (u *unanswered) postpone(by time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.requests {
		p.queued = p.queued.Add(by)
	}
}

// due returns how many judged requests have needed no slot, or have had idle slots to
// compute in, since the time given. Now, idle slots are idle.
func (u *unanswered) due(idle int, now, since time.Time) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, p := range u.requests {
		if p.sent.IsZero() || !p.work.Judged {
			continue
		}
		if !p.work.NoSlot && int64(idle) < p.work.Answers {
			p.queued = now
		}
		if !p.queued.After(since) {
			n++
		}
	}
	return n
}

// reportHung calls Work.Hung of the requests that were sent before the time given and
// whose callers have left.
func (u *unanswered) reportHung(before time.Time) {
	u.mu.Lock()
	var hung []func()
	for _, p := range u.requests {
		if p.left && p.work.Judged && p.work.Hung != nil && !p.queued.After(before) {
			hung = append(hung, p.work.Hung)
		}
	}
	u.mu.Unlock()
	for _, f := range hung {
		f()
	}
}

// slotHistory remembers since when the slots compute what they compute.
type slotHistory struct {
	since map[int64]time.Time // by task
}

// outside returns how many requests have computed outside the slots for limit. It
// counts the judged requests that are due, and those whose responses have begun; each
// of them has a task that is older than half of limit, unless it is outside. Tasks of
// requests that are not counted only hide others.
//
// While a server that slept loads its model again, nothing is outside: loaded is when
// it last said what it loads.
func (h *slotHistory) outside(u *unanswered, slots []slotState, streams int, loaded, now time.Time, limit time.Duration) int {
	tasks, idle, old := map[int64]time.Time{}, 0, 0
	for _, s := range slots {
		if !s.Processing {
			idle++
			continue
		}
		since, ok := h.since[s.Task]
		if !ok {
			since = now
		}
		tasks[s.Task] = since
		if now.Sub(since) >= limit/2 {
			old++
		}
	}
	h.since = tasks
	due := u.due(idle, now, now.Add(-limit))
	if now.Sub(loaded) < limit {
		return 0
	}
	return min(due, max(0, due+streams-old))
}
