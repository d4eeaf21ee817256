package gateway

import (
	"context"
	"sync"
)

// queue shares places between clients: a free place goes to the waiting client
// that has the fewest, and among those to the one that has waited longest.
type queue struct {
	places, limit, perClient int

	mu      sync.Mutex
	active  map[string]int // places that a client has
	count   int            // of all of them
	waiting []*waiter      // in order of arrival
	waits   map[string]int
}

type waiter struct {
	client string
	ready  chan struct{}
}

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
func (q *queue) acquire(ctx context.Context, client string) error {
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
	me := &waiter{client: client, ready: make(chan struct{})}
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

// next assigns a place to the client whose turn it is.
func (q *queue) next() {
	next := -1
	for i, w := range q.waiting {
		if next < 0 || q.active[w.client] < q.active[q.waiting[next].client] {
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
