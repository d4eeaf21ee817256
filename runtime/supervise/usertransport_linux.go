package supervise

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// maxSpareAge is how long a connection is kept open for the next request.
	// llama-server closes one without a request after five seconds
	// (CPPHTTPLIB_KEEPALIVE_TIMEOUT_SECOND), and one of its threads looks after it until
	// then.
	maxSpareAge = 2 * time.Second
	// spareTimeout limits the time in which such a connection is made.
	spareTimeout = 5 * time.Second
	// maxResponseHead limits the head of a response, in bytes.
	maxResponseHead = 1 << 20
	// earlyAnswerWait limits the wait for the answer to a request that llama-server has not
	// read to its end.
	earlyAnswerWait = time.Second
)

// userTransport sends the requests of a child's users to one process. It uses each
// connection once: llama-server v0.5.0 closes a connection after a stream without
// saying so (tools/server/server-http.cpp: the provider of the content returns false
// at its end, which cpp-httplib takes for a failure), and a request that is sent
// before the close is seen would be lost. An idle connection also occupies one of the
// server's threads.
//
// When a request has ended, the connection for the next one is made: the next request
// then waits neither for a connect nor for the threads of the server that accept it.
//
// Unlike http.Transport it sends a request and reads the response in the goroutine of
// the caller. Where processors are busy with computing, each handover between threads
// costs tens of microseconds.
type userTransport struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu     sync.Mutex
	spare  net.Conn // nil: none
	expire *time.Timer
	making bool // a spare connection is being made
	closed bool
}

// newUserTransport returns a transport that connects through dial alone.
func newUserTransport(dial func(ctx context.Context) (net.Conn, error)) *userTransport {
	return &userTransport{dial: dial}
}

// Close closes the spare connection. No other one is made from now on.
func (t *userTransport) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	if conn := t.take(); conn != nil {
		_ = conn.Close()
	}
}

// take returns the spare connection, nil if there is none.
func (t *userTransport) take() net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn := t.spare
	if conn != nil {
		t.spare = nil
		t.expire.Stop()
	}
	return conn
}

// prepare makes a spare connection in the background, unless there is one.
func (t *userTransport) prepare() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.making || t.spare != nil {
		return
	}
	t.making = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), spareTimeout)
		defer cancel()
		conn, err := t.dial(ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.making = false
		switch {
		case err != nil: // the next request connects itself, and reports the cause
		case t.closed:
			_ = conn.Close()
		default:
			t.spare, t.expire = conn, time.AfterFunc(maxSpareAge, func() { t.expired(conn) })
		}
	}()
}

// expired closes a spare connection if it has not been used.
func (t *userTransport) expired(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spare == conn {
		t.spare = nil
		_ = conn.Close()
	}
}

// connect returns a connection, and whether it is the spare one.
func (t *userTransport) connect(ctx context.Context, spare bool) (conn net.Conn, isSpare bool, err error) {
	if spare {
		if conn = t.take(); conn != nil {
			if isOpen(conn) {
				return conn, true, nil
			}
			_ = conn.Close()
		}
	}
	conn, err = t.dial(ctx)
	return conn, false, err
}

// isOpen reports whether the peer has neither closed a connection nor sent anything.
func isOpen(conn net.Conn) bool {
	if l, ok := conn.(*lingeringConn); ok {
		conn = l.Conn
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && open
}

// roundTrip sends a request and returns the beginning of the response. It calls sent when
// the request was sent, with the connection that roundTrip also returns. Where the spare
// connection turns out to be closed before llama-server has read the request, it is sent
// over another one.
func (t *userTransport) roundTrip(req *http.Request, sent func(net.Conn)) (*http.Response, net.Conn, error) {
	defer closeBody(req)
	ctx := req.Context()
	replayable := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	for {
		conn, isSpare, err := t.connect(ctx, replayable)
		if err != nil {
			return nil, nil, canceled(ctx, err)
		}
		x := &userBody{ctx: ctx, conn: conn, ended: t.prepare}
		x.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		res, err := x.exchange(req, sent)
		if err == nil {
			return res, conn, nil
		}
		x.stop()
		_ = conn.Close()
		unread := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
		if !isSpare || x.buffer != nil || !unread || ctx.Err() != nil {
			return nil, conn, canceled(ctx, err)
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, conn, err
			}
		}
	}
}

// canceled returns the cause of a context that has ended, else err.
func canceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// userBody is the body of a response. At its end its connection is closed.
type userBody struct {
	ctx   context.Context //nolint:containedctx // of the request
	conn  net.Conn
	stop  func() bool // of the close at the end of ctx
	ended func()      // called at the end
	once  sync.Once

	body   io.Reader
	buffer *bufio.Reader // that body reads from; nil: it is at its end
}

// exchange sends the request and reads the head of the response. buffer is set as soon as
// a part of the response has arrived.
func (b *userBody) exchange(req *http.Request, sent func(net.Conn)) (*http.Response, error) {
	err := write(b.conn, req)
	if err == nil {
		sent(b.conn)
	} else { // llama-server may have answered without reading everything
		_ = b.conn.SetReadDeadline(time.Now().Add(earlyAnswerWait))
	}
	head := &limitedConn{Conn: b.conn, left: maxResponseHead}
	r, _ := readers.Get().(*bufio.Reader) // the pool has nothing else
	r.Reset(head)
	if _, readErr := r.Peek(1); readErr != nil {
		readers.Put(r)
		return nil, fmt.Errorf("llama-server did not answer: %w", cmp.Or(err, readErr))
	}
	if err != nil {
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	b.buffer = r
	if l, ok := b.conn.(*lingeringConn); ok {
		l.answered()
	}
	res, err := http.ReadResponse(r, req)
	for err == nil && res.StatusCode < http.StatusOK && res.StatusCode != http.StatusSwitchingProtocols {
		res, err = http.ReadResponse(r, req)
	}
	if err != nil {
		return nil, fmt.Errorf("llama-server's response: %w", err)
	}
	head.left = math.MaxInt64
	b.body = res.Body
	if res.Body == http.NoBody {
		b.end()
	}
	res.Body = b
	return res, nil
}

// write sends a request.
func write(conn net.Conn, req *http.Request) error {
	w, _ := writers.Get().(*bufio.Writer) // the pool has nothing else
	defer writers.Put(w)
	w.Reset(conn)
	if err := req.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// Read implements io.Reader.
func (b *userBody) Read(p []byte) (int, error) {
	if b.buffer == nil {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		readers.Put(b.buffer)
		b.buffer = nil
	default:
		err = canceled(b.ctx, err)
	}
	b.end()
	return n, err
}

// Close implements io.Closer.
func (b *userBody) Close() error {
	b.end()
	return nil
}

// end closes the connection.
func (b *userBody) end() {
	b.once.Do(func() {
		b.stop()
		_ = b.conn.Close()
		b.ended()
	})
}

// limitedConn limits what is read from a connection.
type limitedConn struct {
	net.Conn

	left int64 // MaxInt64: no limit
}

var errLongHead = errors.New("the head of llama-server's response is too long")

// Read implements io.Reader.
func (c *limitedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHead
	}
	n, err := c.Conn.Read(p)
	if c.left != math.MaxInt64 {
		c.left -= int64(n)
	}
	return n, err
}

// readers and writers keep the buffers of requests that have ended.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
)
