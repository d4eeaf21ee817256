package gateway

import (
	"net"
	"net/http"
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
	// LoadWait is how long a request may wait for its model. Default 10 minutes.
	LoadWait time.Duration
	// FirstComment is how long a client waits silently that asked for a stream,
	// Comments the time between the comments that follow. Defaults 5 and 10 s.
	FirstComment, Comments time.Duration
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
	duration(&l.LoadWait, 10*time.Minute)
	duration(&l.FirstComment, 5*time.Second)
	duration(&l.Comments, 10*time.Second)
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

// clientAddress names the client that a request without a key counts for. Programs on
// one machine are one client.
func clientAddress(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// limitRequests lets as many requests pass as llama-server can compute, and keeps
// the others waiting, or rejects them.
func (g *Gateway) limitRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		q := x.served.heavy
		if rt, _ := g.findRoute(r.URL.Path); rt.light {
			q = x.served.light
		}
		var err error
		x.waiting.while(func() { err = q.acquire(r.Context(), x.client, x.key.priority()) })
		if err != nil {
			if r.Context().Err() == nil {
				writeBusy(w, err)
			}
			return
		}
		defer q.release(x.client)
		next.ServeHTTP(w, r)
	})
}
