//go:build linux

package supervise

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// rawServer serves each connection to a unix socket with a function, and returns a dial
// function that counts.
func rawServer(t *testing.T, serve func(*net.UnixConn)) (dial func(context.Context) (net.Conn, error), dials *atomic.Int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	dials = new(atomic.Int32)
	return func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}, dials
}

// answerRequest reads a request and answers with its body.
func answerRequest(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	body, _ := io.ReadAll(req.Body)
	res := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}
	_ = res.Write(conn)
}

func postRequest(t *testing.T, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://llama/completion", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// trip sends a request and returns the answer.
func (t *userTransport) trip(req *http.Request) (string, error) {
	res, _, err := t.roundTrip(req, func(net.Conn) {})
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	return string(body), errors.Join(err, res.Body.Close())
}

func (t *userTransport) hasSpare() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spare != nil
}

func TestNextRequestUsesASpareConnection(t *testing.T) {
	t.Parallel()
	dial, dials := rawServer(t, answerRequest)
	transport := newUserTransport(dial)
	defer transport.Close()
	for n := range int32(3) {
		if got, err := transport.trip(postRequest(t, "hello")); err != nil || got != "hello" {
			t.Fatalf("request %d: %q, %v", n, got, err)
		}
		poll.Until(t, "a spare connection", transport.hasSpare)
		if got := dials.Load(); got != n+2 {
			t.Fatalf("%d connections after request %d, want %d", got, n, n+2)
		}
	}
	// A body that cannot be sent again gets a connection of which nothing has to be
	// assumed.
	req := postRequest(t, "hello")
	req.GetBody = nil
	if got, err := transport.trip(req); err != nil || got != "hello" || dials.Load() != 5 {
		t.Errorf("without GetBody: %q, %v, %d connections, want 5", got, err, dials.Load())
	}
}

// failingConn fails as a connection does that its peer has closed.
type failingConn struct {
	net.Conn

	write, read error
	answer      string // before the error of read
	wrote       *atomic.Int32
}

func (c *failingConn) Write(p []byte) (int, error) {
	if c.write != nil {
		return 0, c.write
	}
	c.wrote.Add(1)
	return len(p), nil
}

func (c *failingConn) Read(p []byte) (int, error) {
	if n := copy(p, c.answer); n > 0 {
		c.answer = c.answer[n:]
		return n, nil
	}
	return 0, c.read
}

func (c *failingConn) Close() error                    { return nil }
func (c *failingConn) SetReadDeadline(time.Time) error { return nil }

// A request is sent again if the spare connection was closed before llama-server read
// the request, and in no other case.
func TestRequestOnAClosedSpareConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		write, read error
		answer      string
		again       bool
	}{
		"closed before":             {write: syscall.EPIPE, read: io.EOF, again: true},
		"closed with the request":   {read: syscall.ECONNRESET, again: true},
		"closed after reading":      {read: io.EOF},
		"closed in the answer":      {read: syscall.ECONNRESET, answer: "HTTP/1.1 200 OK\r\n"},
		"answered before the close": {write: syscall.EPIPE, read: syscall.ECONNRESET, answer: "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial, dials := rawServer(t, answerRequest)
			transport := newUserTransport(dial)
			defer transport.Close()
			transport.spare, transport.expire = &failingConn{write: tt.write, read: tt.read, answer: tt.answer, wrote: new(atomic.Int32)}, time.NewTimer(time.Hour)
			got, err := transport.trip(postRequest(t, "hello"))
			if again := dials.Load() == 1 && got == "hello"; again != tt.again {
				t.Errorf("%q, %v, %d connections; want it sent again: %v", got, err, dials.Load(), tt.again)
			}
			if answered := strings.Contains(tt.answer, "413"); (err == nil) != (tt.again || answered) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	t.Run("known to be closed", func(t *testing.T) {
		t.Parallel()
		dial, dials := rawServer(t, answerRequest)
		transport := newUserTransport(dial)
		defer transport.Close()
		idle, _ := rawServer(t, func(conn *net.UnixConn) { _ = conn.Close() })
		closed, err := idle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		poll.Until(t, "the close", func() bool { return !isOpen(closed) })
		transport.spare, transport.expire = closed, time.NewTimer(time.Hour)
		req := postRequest(t, "hello")
		req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("it is sent again") }
		if got, err := transport.trip(req); err != nil || got != "hello" || dials.Load() != 1 {
			t.Errorf("%q, %v, %d connections", got, err, dials.Load())
		}
	})
}

// A request over a connection of its own is sent once, whatever happens.
func TestRequestIsSentOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{"reset": syscall.ECONNRESET, "closed": io.EOF} {
		var wrote atomic.Int32
		transport := newUserTransport(func(context.Context) (net.Conn, error) { return &failingConn{read: end, wrote: &wrote}, nil })
		if got, err := transport.trip(postRequest(t, "hello")); !errors.Is(err, end) || wrote.Load() != 1 {
			t.Errorf("%s: %q, %v, sent %d times", name, got, err, wrote.Load())
		}
	}
}

func TestSpareConnectionExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var peers []net.Conn
		transport := newUserTransport(func(context.Context) (net.Conn, error) {
			ours, peer := net.Pipe()
			peers = append(peers, peer)
			return ours, nil
		})
		closed := func(peer net.Conn) bool {
			_ = peer.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := peer.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		transport.prepare()
		transport.prepare() // one is enough
		synctest.Wait()
		if len(peers) != 1 || !transport.hasSpare() || closed(peers[0]) {
			t.Fatalf("%d connections, spare: %v", len(peers), transport.hasSpare())
		}
		time.Sleep(maxSpareAge)
		synctest.Wait()
		if transport.hasSpare() || !closed(peers[0]) {
			t.Error("an old connection is still open")
		}
		transport.prepare()
		synctest.Wait()
		transport.Close()
		transport.prepare()
		synctest.Wait()
		if len(peers) != 2 || transport.hasSpare() || !closed(peers[1]) {
			t.Errorf("after Close: %d connections, spare: %v", len(peers), transport.hasSpare())
		}
	})
}

// What the server answers before it has read everything reaches the caller, interim
// responses do not.
func TestUnusualAnswers(t *testing.T) {
	t.Parallel()
	head := "HTTP/1.1 200 OK\r\n"
	for name, tt := range map[string]struct {
		answer string
		reads  bool
		want   string // body
		err    error
	}{
		"interim":        {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head + "Content-Length: 2\r\n\r\nok", true, "ok", nil},
		"until the end":  {head + "\r\nok", true, "ok", nil},
		"nothing":        {head + "Content-Length: 0\r\n\r\n", true, "", nil},
		"cut":            {head + "Content-Length: 3\r\n\r\nok", true, "ok", io.ErrUnexpectedEOF},
		"cut in a chunk": {head + "Transfer-Encoding: chunked\r\n\r\n4\r\nok", true, "ok", io.ErrUnexpectedEOF},
		"no answer":      {"", true, "", io.EOF},
		"endless head":   {head + strings.Repeat("A: b\r\n", maxResponseHead/6+1), true, "", errLongHead},
		"early":          {head + "Content-Length: 2\r\n\r\nno", false, "no", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial, _ := rawServer(t, func(conn *net.UnixConn) {
				defer func() { _ = conn.Close() }()
				if tt.reads {
					req, err := http.ReadRequest(bufio.NewReader(conn))
					if err == nil {
						_, _ = io.Copy(io.Discard, req.Body)
					}
				}
				_, _ = io.WriteString(conn, tt.answer)
			})
			transport := newUserTransport(dial)
			defer transport.Close()
			got, err := transport.trip(postRequest(t, strings.Repeat("x", 4<<20)))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// A caller who leaves ends the request at each of its stages, with his own cause.
func TestCallerLeavesTheTransport(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	stages := map[string]string{"before the answer": "", "in the head": "HTTP/1.1 200 OK\r\n", "in the body": "HTTP/1.1 200 OK\r\n\r\nbegin"}
	for name, answer := range stages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			end := sync.OnceFunc(func() { close(ended) }) // a spare connection may follow
			ctx, leave := context.WithCancelCause(t.Context())
			dial, _ := rawServer(t, func(conn *net.UnixConn) {
				defer end()
				r := bufio.NewReader(conn)
				_, _ = http.ReadRequest(r)
				_, _ = io.WriteString(conn, answer)
				if name != "in the body" {
					leave(cause)
				}
				_, _ = io.Copy(io.Discard, r) // until the caller has closed the connection
			})
			transport := newUserTransport(dial)
			defer transport.Close()
			req := postRequest(t, "hello").WithContext(ctx)
			res, _, err := transport.roundTrip(req, func(net.Conn) {})
			if err == nil {
				_, _ = io.ReadFull(res.Body, make([]byte, len("begin")))
				leave(cause)
				_, err = res.Body.Read(make([]byte, 1))
				_ = res.Body.Close()
			}
			if !errors.Is(err, cause) {
				t.Errorf("the error is %v", err)
			}
			<-ended
		})
	}
}
