package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

const (
	// idleConnTimeout is how long an unused connection of the probes is kept.
	// llama-server closes it after five seconds, and a probe must not meet that moment.
	idleConnTimeout = 3 * time.Second
	// exitSignWait is how long after a broken connection a process may take to show
	// that it is exiting: the kernel closes its files a moment earlier.
	exitSignWait = 100 * time.Millisecond
	// exitCauseWait limits the wait for the cause of the exit after that: the driver
	// releases what was on the GPU, descendants are killed, and the rest of the
	// output is read first.
	exitCauseWait = 10 * time.Second
)

// newTransport returns a transport that connects through dial alone.
func newTransport(dial func(ctx context.Context) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		Proxy:              nil,
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
		IdleConnTimeout:    idleConnTimeout,
	}
}

// newUserTransport returns a transport for the requests of users. It uses each
// connection once: llama-server v0.5.0 closes a connection after a stream without
// saying so (tools/server/server-http.cpp: the provider of the content returns false
// at its end, which cpp-httplib takes for a failure), and a request that is sent
// before the close is seen would be lost. An idle connection also occupies one of the
// server's threads.
func newUserTransport(dial func(ctx context.Context) (net.Conn, error)) *http.Transport {
	t := newTransport(dial)
	t.DisableKeepAlives = true
	return t
}

// retryTransport is the http.RoundTripper of a child's users. It delays requests
// until the child is ready, adds the API key, counts running requests, and
// replaces the error of a broken request by the cause of the exit.
//
// If the process was killed from outside before any part of the answer, and the
// policy restarts it, the request is retried once. A request that was in flight when
// the process crashed, hung or ran out of memory may be the cause and is not
// retried; if no other was in flight, its error wraps ErrCrashed. Requests that only
// read are no causes.
type retryTransport struct {
	child  *Child
	active atomic.Int64 // forwarded requests that have not ended
}

// RoundTrip implements http.RoundTripper.
func (t *retryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	for retry := 0; ; retry++ {
		p, err := t.child.waitReady(req)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		res, err := t.send(p, req, retry > 0)
		if err == nil {
			body := &trackedBody{ReadCloser: res.Body, transport: t, p: p, req: req}
			p.streams.add(body)
			res.Body = body
			return res, nil
		}
		exit, exited := t.broken(req, p)
		if !exited {
			return nil, err
		}
		replayable := req.Body == nil || req.GetBody != nil
		switch {
		case exit.isSuspect() || !replayable || t.child.spec.Restart.Mode == Never:
			return nil, exit.requestError(req, err)
		case retry > 0:
			return nil, fmt.Errorf("%w: %w (%w)", ErrCrashed, exit.err, err)
		}
	}
}

// broken ends a request that broke. It returns the record of the process's exit, or
// false if the process lives on; its slot is then freed.
func (t *retryTransport) broken(req *http.Request, p *process) (exitRecord, bool) {
	t.active.Add(-1)
	exit, exited := t.child.exitCause(req.Context(), p)
	p.load.end(req)
	if !exited {
		t.child.freeSlots(p)
	}
	return exit, exited
}

// requestError returns the error of a request that was in flight, which broke with
// err.
func (r exitRecord) requestError(req *http.Request, err error) error {
	if r.isSuspect() && r.running == 1 && !onlyReads(req) {
		return fmt.Errorf("%w: %w (%w)", ErrCrashed, r.err, err)
	}
	return fmt.Errorf("%w (%w)", r.err, err)
}

// send sends the request to a process once.
func (t *retryTransport) send(p *process, req *http.Request, retry bool) (*http.Response, error) {
	out := req.Clone(req.Context())
	if retry && req.GetBody != nil {
		var err error
		if out.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	if out.Header.Get("Authorization") == "" {
		out.Header.Set("Authorization", "Bearer "+t.child.key)
	}
	sent := p.unanswered.add(out)
	var conn atomic.Pointer[lingeringConn]
	trace := &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			if l, ok := i.Conn.(*lingeringConn); ok {
				conn.Store(l)
			}
		},
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			sent()
			if l := conn.Load(); l != nil && i.Err == nil {
				l.await(func() { p.unanswered.remove(out) })
			}
		},
		GotFirstResponseByte: func() {
			if l := conn.Load(); l != nil {
				l.answered()
			}
		},
	}
	res, err := p.userTransport.RoundTrip(out.WithContext(httptrace.WithClientTrace(out.Context(), trace)))
	if l := conn.Load(); err != nil && req.Context().Err() != nil && l != nil && l.isAwaited() {
		p.unanswered.leave(out)
	} else {
		p.unanswered.remove(out)
	}
	return res, err
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// waitReady waits for a ready process and returns it. It counts the request as
// running; the caller ends that. Both happen in one step under the lock of the
// state: a drain, which follows a change of state, waits for every request that
// was forwarded.
func (c *Child) waitReady(req *http.Request) (*process, error) {
	ctx := req.Context()
	for {
		p, changed, err := c.tryReady(req)
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryReady is waitReady without the wait. If it returns neither a process nor an
// error, the caller tries again after the next change.
func (c *Child) tryReady(req *http.Request) (p *process, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case Ready:
		// The exit is recorded before the state changes. A request that arrives in
		// between would waste its retry on a socket that nobody reads.
		if _, exited := c.exits[c.current.run]; !exited {
			c.transport.active.Add(1)
			c.current.load.begin(req)
			return c.current, nil, nil
		}
	case Stopping, Stopped:
		return nil, nil, ErrStopped
	case Failed:
		return nil, nil, c.err
	case Starting, Loading, Stalled:
	}
	return nil, c.changed, nil
}

// exitCause waits until the exit of a process is recorded and returns the record. It
// returns false if the process lives on or ctx ends.
func (c *Child) exitCause(ctx context.Context, p *process) (exitRecord, bool) {
	if ctx.Err() != nil {
		return exitRecord{}, false
	}
	sign, limit := time.NewTimer(exitSignWait), time.NewTimer(exitCauseWait)
	defer sign.Stop()
	defer limit.Stop()
	for {
		c.mu.Lock()
		exit, recorded := c.exits[p.run]
		changed := c.changed
		c.mu.Unlock()
		if recorded {
			return exit, true
		}
		select {
		case <-changed:
		case <-sign.C:
			if !p.isExiting() {
				return exitRecord{}, false
			}
		case <-ctx.Done():
			return exitRecord{}, false
		case <-limit.C:
			return exitRecord{}, false
		}
	}
}

// trackedBody counts a request as running until its body is read to the end or
// closed. It replaces the error of a broken body by the cause of the exit.
type trackedBody struct {
	io.ReadCloser
	transport *retryTransport
	p         *process
	req       *http.Request // that the body answers
	reading   atomic.Bool   // Read waits for llama-server
	finished  atomic.Bool
}

// Read implements io.Reader.
func (b *trackedBody) Read(p []byte) (int, error) {
	b.reading.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.reading.Store(false)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) || !b.finished.CompareAndSwap(false, true) {
		b.finish()
		return n, err
	}
	b.p.streams.remove(b)
	if exit, exited := b.transport.broken(b.req, b.p); exited {
		return n, exit.requestError(b.req, err)
	}
	return n, err
}

// Close implements io.Closer. A body that was not read to its end is abandoned.
func (b *trackedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.finish() {
		b.transport.child.freeSlots(b.p)
	}
	return err
}

// finish ends the request, and reports whether it had not ended.
func (b *trackedBody) finish() bool {
	if !b.finished.CompareAndSwap(false, true) {
		return false
	}
	b.p.streams.remove(b)
	b.transport.active.Add(-1)
	b.p.load.end(b.req)
	return true
}
