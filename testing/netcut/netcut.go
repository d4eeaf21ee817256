// Package netcut breaks connections of an HTTP client after a given number of bytes, as
// a server does that crashes or a network that fails. It is for tests of clients that
// must continue.
package netcut

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Cutter makes connections and breaks one of them. Its zero value breaks none.
type Cutter struct {
	mu    sync.Mutex
	armed bool
	left  int
	n     int
}

// After breaks a connection when its clients have read n more bytes: headers and bodies
// of all connections together. Half of the values of n make it end, the others reset it.
func (c *Cutter) After(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.left, c.n = true, n, n
}

// Done reports whether the connection has been broken, since the last After.
func (c *Cutter) Done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.armed
}

// Transport returns an HTTP transport over such connections.
func (c *Cutter) Transport() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &cutConn{conn, c}, nil
	}}
}

type cutConn struct {
	net.Conn
	c *Cutter
}

// Read implements io.Reader.
func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	if !c.c.armed || n < c.c.left || n == 0 {
		c.c.left -= n
		return n, err
	}
	c.c.armed = false
	_ = c.Close()
	if c.c.n%2 == 0 {
		return c.c.left, io.EOF
	}
	return c.c.left, syscall.ECONNRESET
}
