package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// idleConnTimeout is how long an unused connection is kept. llama-server closes
	// it after five seconds, and a request must not meet that moment.
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
		Proxy:               nil,
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     idleConnTimeout,
	}
}

// retryTransport is the http.RoundTripper of a child's users. It delays requests
// until the child is ready, adds the API key, counts running requests, and
// replaces the error of a broken request by the cause of the exit. If a process
// exits before any part of the answer and the policy restarts it, the request is
// retried once. It is not retried twice, since it may have caused the exit.
type retryTransport struct {
	child  *Child
	active atomic.Int64 // forwarded requests that have not ended
}

// RoundTrip implements http.RoundTripper.
func (t *retryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for retry := 0; ; retry++ {
		p, err := t.child.waitReady(ctx)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		res, err := t.send(p, req, retry > 0)
		if err == nil {
			res.Body = &trackedBody{ReadCloser: res.Body, transport: t, p: p, ctx: ctx}
			return res, nil
		}
		t.active.Add(-1)
		if ctx.Err() != nil {
			return nil, err
		}
		exit := t.child.exitCause(ctx, p)
		if exit == nil {
			return nil, err
		}
		replayable := req.Body == nil || req.GetBody != nil
		if !replayable || t.child.spec.Restart.Mode == Never {
			return nil, fmt.Errorf("%w (%w)", exit, err)
		}
		if retry > 0 {
			return nil, fmt.Errorf("%w: %w (%w)", ErrCrashedTwice, exit, err)
		}
	}
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
	return p.userTransport.RoundTrip(out)
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
func (c *Child) waitReady(ctx context.Context) (*process, error) {
	for {
		p, changed, err := c.tryReady()
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
func (c *Child) tryReady() (p *process, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case Ready:
		// The exit is recorded before the state changes. A request that arrives in
		// between would waste its retry on a socket that nobody reads.
		if _, exited := c.exits[c.current.run]; !exited {
			c.transport.active.Add(1)
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

// exitCause returns why a process exited and waits until the cause is recorded.
// It returns nil if the process lives on.
func (c *Child) exitCause(ctx context.Context, p *process) error {
	sign, limit := time.NewTimer(exitSignWait), time.NewTimer(exitCauseWait)
	defer sign.Stop()
	defer limit.Stop()
	for {
		c.mu.Lock()
		err, recorded := c.exits[p.run]
		changed := c.changed
		c.mu.Unlock()
		if recorded {
			return err
		}
		select {
		case <-changed:
		case <-sign.C:
			if !p.isExiting() {
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return nil
		}
	}
}

// trackedBody counts a request as running until its body is read to the end or
// closed. It replaces the error of a broken body by the cause of the exit.
type trackedBody struct {
	io.ReadCloser
	transport *retryTransport
	p         *process
	ctx       context.Context //nolint:containedctx // of the request that the body belongs to
	finished  atomic.Bool
}

// Read implements io.Reader.
func (b *trackedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	b.finish()
	if errors.Is(err, io.EOF) || b.ctx.Err() != nil {
		return n, err
	}
	if exit := b.transport.child.exitCause(b.ctx, b.p); exit != nil {
		return n, fmt.Errorf("%w (%w)", exit, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *trackedBody) Close() error {
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

func (b *trackedBody) finish() {
	if b.finished.CompareAndSwap(false, true) {
		b.transport.active.Add(-1)
	}
}
