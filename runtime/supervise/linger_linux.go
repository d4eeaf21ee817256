package supervise

import (
	"io"
	"net"
	"os"
	"sync"
)

// lingeringConn is a connection for one request. A caller that leaves before the
// response begins closes only its own direction, which llama-server takes for a closed
// connection; the other one stays open until llama-server closes it. So it is known
// how long llama-server works for a request that nobody waits for.
type lingeringConn struct {
	net.Conn

	mu       sync.Mutex
	waits    bool // the request was sent and has no response
	closed   bool
	released func() // called when llama-server has closed the connection, or nothing is known of it
}

// await notes that the request was sent. It calls released at the end.
func (l *lingeringConn) await(released func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		released()
		return
	}
	l.waits, l.released = true, released
}

// isAwaited reports whether released will be called, or may have been.
func (l *lingeringConn) isAwaited() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released != nil
}

// answered notes that the response has begun.
func (l *lingeringConn) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = false
}

// Close implements net.Conn.
func (l *lingeringConn) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.Conn.Close()
	}
	l.closed = true
	if rest := l.halfClose(); rest != nil {
		released := l.released
		go func() {
			_, _ = io.Copy(io.Discard, rest) // until the end, or an error
			_ = rest.Close()
			released()
		}()
	} else if l.released != nil {
		l.released()
	}
	return l.Conn.Close()
}

// halfClose closes the direction to llama-server, and returns another handle of the
// connection for what comes from there. It returns nil if nothing is awaited.
func (l *lingeringConn) halfClose() net.Conn {
	conn, ok := l.Conn.(interface {
		CloseWrite() error
		File() (*os.File, error)
	})
	if !ok || !l.waits {
		return nil
	}
	file, err := conn.File()
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	rest, err := net.FileConn(file)
	if err != nil {
		return nil
	}
	if conn.CloseWrite() != nil {
		_ = rest.Close()
		return nil
	}
	return rest
}
