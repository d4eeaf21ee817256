package gateway

import (
	"context"
	"sync"
	"time"
)

// ageStep is the time in which a waiting request rises by one priority, so that no
// request waits without end.
const ageStep = time.Minute

// queue shares places between clients. A free place goes to the request
//
//  1. of the highest priority, to which each ageStep of waiting adds one;
//  2. among those, of the client that has the fewest places;
//  3. among those, that has waited longest.
type queue struct {
	places, limit, perClient int

	mu      sync.Mutex
	active  map[string]int // places that a client has
	count   int            // of all of them
	waiting []*waiter      // in order of arrival
	waits   map[string]int
}

type waiter struct {
	client   string
	priority int
	since    time.Time
	ready    chan struct{}
}

// rank returns the priority of a request that has waited.
func (w *waiter) rank(now time.Time) int { return w.priority + int(now.Sub(w.since)/ageStep) }

func newQueue(places, limit, perClient int) *queue {
	return &queue{places: places, limit: limit, perClient: perClient, active: map[string]int{}, waits: map[string]int{}}
}

// setPlaces changes the number of places.
func (q *queue) setPlaces(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.places = n
	for q.count < q.places && len(q.waiting) > 0 {
		q.next()
	}
}

// acquire waits for a place. It returns errBusy when too many wait already.
func (q *queue) acquire(ctx context.Context, client string, priority int) error {
	q.mu.Lock()
	if q.count < q.places {
		q.occupy(client)
		q.mu.Unlock()
		return nil
	}
	if len(q.waiting) >= q.limit || q.waits[client] >= q.perClient {
		q.mu.Unlock()
		return errBusy
	}
	me := &waiter{client: client, priority: priority, since: time.Now(), ready: make(chan struct{})}
	q.waiting = append(q.waiting, me)
	q.waits[client]++
	q.mu.Unlock()
	select {
	case <-me.ready:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.waiting {
		if other == me {
			q.remove(i)
			return ctx.Err()
		}
	}
	q.free(client) // the place came at the same moment
	return ctx.Err()
}

// release returns a place.
func (q *queue) release(client string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free(client)
}

func (q *queue) occupy(client string) {
	q.count++
	q.active[client]++
}

// free returns a place and passes it on.
func (q *queue) free(client string) {
	q.count--
	if q.active[client]--; q.active[client] == 0 {
		delete(q.active, client)
	}
	if q.count < q.places {
		q.next()
	}
}

// next assigns a place to the request whose turn it is.
func (q *queue) next() {
	next, now := -1, time.Now()
	for i, w := range q.waiting {
		if next < 0 {
			next = i
			continue
		}
		best := q.waiting[next]
		rank, bestRank := w.rank(now), best.rank(now)
		if rank > bestRank || rank == bestRank && q.active[w.client] < q.active[best.client] {
			next = i
		}
	}
	if next < 0 {
		return
	}
	w := q.waiting[next]
	q.remove(next)
	q.occupy(w.client)
	close(w.ready)
}

func (q *queue) remove(i int) {
	client := q.waiting[i].client
	q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
	if q.waits[client]--; q.waits[client] == 0 {
		delete(q.waits, client)
	}
}
