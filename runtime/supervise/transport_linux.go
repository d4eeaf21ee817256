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
	// idleConn is how long an unused connection is kept: llama-server closes it
	// after five seconds, and a request must not meet that moment.
	idleConn = 3 * time.Second
	// deathSign is how long after its connection broke a process may take to show
	// that it dies: the kernel closes the files of one that does a moment before.
	deathSign = 100 * time.Millisecond
	// deathNews is how long it then takes at most to learn what of: the driver
	// takes down what was on the GPU, descendants are ended, and the last of the
	// output is read first.
	deathNews = 10 * time.Second
)

// newBase is a transport for one child's address and nothing else.
func newBase(dial func(ctx context.Context) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		Proxy:               nil,
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     idleConn,
	}
}

// gate is the http.RoundTripper of a child's users. It holds requests back
// until the child is ready, adds the key, counts what runs, says why a broken
// request broke, and repeats a request whose process died before it answered
// if another is started: once, since it may be what the process died of.
type gate struct {
	child   *Child
	running atomic.Int64 // requests let through and not over
}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for repeat := 0; ; repeat++ {
		p, err := g.child.admit(ctx)
		if err != nil {
			drainBody(req)
			return nil, err
		}
		res, err := g.send(p, req, repeat > 0)
		if err == nil {
			res.Body = &trackedBody{ReadCloser: res.Body, gate: g, p: p, ctx: ctx}
			return res, nil
		}
		g.running.Add(-1)
		if ctx.Err() != nil {
			return nil, err
		}
		death := g.child.deathOf(ctx, p)
		if death == nil {
			return nil, err
		}
		replayable := req.Body == nil || req.GetBody != nil
		if !replayable || g.child.spec.Restart.Mode == Never {
			return nil, fmt.Errorf("%w (%w)", death, err)
		}
		if repeat > 0 {
			return nil, fmt.Errorf("%w: %w (%w)", ErrCrashedTwice, death, err)
		}
	}
}

// send asks a process once.
func (g *gate) send(p *process, req *http.Request, again bool) (*http.Response, error) {
	out := req.Clone(req.Context())
	if again && req.GetBody != nil {
		var err error
		if out.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	if out.Header.Get("Authorization") == "" {
		out.Header.Set("Authorization", "Bearer "+g.child.key)
	}
	return p.base.RoundTrip(out)
}

func drainBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// trackedBody counts a request as running until its body is closed or ended,
// and gives a broken one its cause.
type trackedBody struct {
	io.ReadCloser
	gate *gate
	p    *process
	ctx  context.Context //nolint:containedctx // of the request that the body belongs to
	done atomic.Bool
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
	if death := b.gate.child.deathOf(b.ctx, b.p); death != nil {
		return n, fmt.Errorf("%w (%w)", death, err)
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
	if b.done.CompareAndSwap(false, true) {
		b.gate.running.Add(-1)
	}
}
