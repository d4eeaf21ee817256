package gateway

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

const (
	// maxWatchers is how many clients may watch the models or the activity at once,
	// maxWatchersPerClient how many streams one of them may have.
	maxWatchers, maxWatchersPerClient = 256, 64
	// watchComments is the time between the comments that keep a silent
	// connection open.
	watchComments = 15 * time.Second
)

// watchers counts the streams of events by client.
type watchers struct {
	mu      sync.Mutex
	count   int
	clients map[string]int
}

func (w *watchers) add(client string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count >= maxWatchers || w.clients[client] >= maxWatchersPerClient {
		return false
	}
	if w.clients == nil {
		w.clients = map[string]int{}
	}
	w.count++
	w.clients[client]++
	return true
}

func (w *watchers) remove(client string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	if w.clients[client]--; w.clients[client] == 0 {
		delete(w.clients, client)
	}
}

// watcher is the response to a client that watches the service.
type watcher struct {
	http.ResponseWriter

	control *http.ResponseController
}

// startWatching begins a stream of events, until stop is called. The context is done
// when the client leaves or the gateway closes. If too many clients watch already, it
// answers the request and returns no stop.
func (g *Gateway) startWatching(w http.ResponseWriter, r *http.Request) (ctx context.Context, out *watcher, stop func()) {
	client := exchangeOf(r.Context()).client
	if !g.watchers.add(client) {
		writeBusy(w, errors.New("too many clients watch the service; retry later"))
		return nil, nil, nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	closed := context.AfterFunc(g.closing, cancel)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	out = &watcher{w, http.NewResponseController(w)}
	return ctx, out, func() {
		closed()
		cancel()
		_ = out.control.SetWriteDeadline(time.Time{})
		g.watchers.remove(client)
	}
}

// Write implements io.Writer. A client that does not read is no reason to wait.
func (w *watcher) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(commentDeadline))
	return w.ResponseWriter.Write(p)
}

// flush sends what was written.
func (w *watcher) flush() error {
	_ = w.control.SetWriteDeadline(time.Now().Add(commentDeadline))
	return w.control.Flush()
}

// mayWatch reports whether a client that watches has its rights still: its key is
// there with the same limits, and the person has not signed out.
func (g *Gateway) mayWatch(r *http.Request) bool {
	x, c := exchangeOf(r.Context()), g.credentials.current.Load()
	switch {
	case x.credential == (credential{}):
		return len(c.keys) == 0
	case x.signedIn && !g.sessions.has(sessionToken(r)):
		return false
	}
	return slices.ContainsFunc(c.keys, func(k credential) bool {
		return k.sum == x.credential.sum && reflect.DeepEqual(k.named, x.credential.named)
	})
}
