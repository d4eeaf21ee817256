package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits bound what clients can ask for at once. A zero value means the default.
type Limits struct {
	// Queue is how many requests may wait, QueuePerClient how many of one client.
	// More are answered 429. Defaults 512 and 256.
	Queue, QueuePerClient int
	// BodyMemory bounds the bodies that are held in memory, BodyMemoryPerClient
	// those of one client, in bytes. Defaults 1 GiB and 512 MiB.
	BodyMemory, BodyMemoryPerClient int64
	// BodyGrace is how long a body may take, plus a second for every BodyRate
	// bytes. Defaults 30 s and 64 KiB.
	BodyGrace time.Duration
	BodyRate  int
	// FirstByte is how long a request that has a slot may run until its answer
	// begins, Idle how long a stream may go on without a token. Negative: no limit.
	// Defaults 30 and 5 minutes: a slow CPU takes minutes for a batch of a prompt,
	// in which no stream gets a token.
	FirstByte, Idle time.Duration
	// Reclaim is how long llama-server may take to react after a request was ended
	// that exceeded them. Default 5 minutes.
	Reclaim time.Duration
	// ResponseBytes bounds an answer. Default 256 MiB.
	ResponseBytes int64
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set64 := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	duration := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Queue, 512)
	set(&l.QueuePerClient, 256)
	set(&l.BodyRate, 64<<10)
	set64(&l.BodyMemory, 1<<30)
	set64(&l.BodyMemoryPerClient, 512<<20)
	set64(&l.ResponseBytes, 256<<20)
	duration(&l.BodyGrace, 30*time.Second)
	duration(&l.FirstByte, 30*time.Minute)
	duration(&l.Idle, 5*time.Minute)
	duration(&l.Reclaim, 5*time.Minute)
	return l
}

// defaultSlots is how many requests llama-server computes side by side where no
// number is given. The others wait in the gateway, since each that is forwarded
// occupies one of llama-server's few HTTP threads.
const defaultSlots = 4

// lightRequests is how many requests that need no slot run side by side. With the
// slots they leave two of llama-server's HTTP threads, of which it has four more
// than slots (server-http.cpp), to whoever watches it.
const lightRequests = 2

// clientKey is the key of a context's value: the client that a request counts for.
type clientKey struct{}

// clientID names the client that a request counts for: by its key, or else by its
// address. Programs on one machine without keys are one client.
func (g *Gateway) clientID(r *http.Request) string {
	if g.credentials.HasKeys() {
		sum := sha256.Sum256([]byte(apiKey(r)))
		return hex.EncodeToString(sum[:8])
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// limitRequests lets as many requests pass as llama-server can compute, and keeps
// the others waiting, or rejects them.
func (g *Gateway) limitRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := g.heavy
		if rt, _ := g.findRoute(r.URL.Path); rt.light {
			q = g.light
		}
		client := g.clientID(r)
		if err := q.acquire(r.Context(), client); err != nil {
			if r.Context().Err() == nil {
				writeBusy(w, err)
			}
			return
		}
		defer q.release(client)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, client)))
	})
}

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
		q.take(client)
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

func (q *queue) take(client string) {
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
	q.take(w.client)
	close(w.ready)
}

func (q *queue) remove(i int) {
	client := q.waiting[i].client
	q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
	if q.waits[client]--; q.waits[client] == 0 {
		delete(q.waits, client)
	}
}
