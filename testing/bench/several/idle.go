package several

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// idleTime limits the time in which a service accepts the idle connections.
const idleTime = 20 * time.Second

// idle opens connections that send one request and then nothing, and measures what they
// take, and whether a further client gets an answer.
func (b *both) idle(ctx context.Context) error {
	var open, memory, answers []float64
	none := map[int]string{} // for services that did not answer
	for i, s := range b.services {
		file := fileTiny
		if _, err := s.through(file).stream(ctx, 2); err != nil {
			return err
		}
		before, err := s.memoryKiB(rssAnon)
		if err != nil {
			return err
		}
		conns := openIdle(ctx, s.base, b.in.Idle)
		after, err := s.memoryKiB(rssAnon)
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, idleTime)
		took, err := s.through(file).fresh().firstToken()(limited)
		cancel()
		switch {
		case err != nil && s == b.services[0]:
			return fmt.Errorf("beside %d idle connections: %w", len(conns), err)
		case err != nil:
			none[i] = "no answer in " + idleTime.String()
		}
		for _, c := range conns {
			_ = c.Close()
		}
		if s == b.services[0] {
			b.goal(page.Goal{What: "idle connections that the gateway has open:", Got: float64(len(conns)), Limit: float64(b.in.Idle), Unit: "connections", AtLeast: true})
		}
		open = append(open, float64(len(conns)))
		memory = append(memory, (after-before)/max(float64(len(conns)), 1))
		answers = append(answers, took)
	}
	b.once(fmt.Sprintf("idle connections open, of %d that %s allow", b.in.Idle, idleTime), open, nil)
	b.once("KiB of memory for each of them", memory, nil)
	b.once("ms to the first token beside them", answers, none)
	return nil
}

// openIdle opens n connections that have had an answer to /health, or as many as
// idleTime allows.
func openIdle(ctx context.Context, base string, n int) []net.Conn {
	ctx, cancel := context.WithTimeout(ctx, idleTime)
	defer cancel()
	var mu sync.Mutex
	var conns []net.Conn
	g := new(errgroup.Group)
	g.SetLimit(maxStreams)
	for range n {
		g.Go(func() error {
			if c := openOne(ctx, strings.TrimPrefix(base, "http://")); c != nil {
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, c)
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return no error
	return conns
}

// openOne returns a connection that has had an answer, nil if there was none in time.
func openOne(ctx context.Context, address string) net.Conn {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	const request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
	answer := make([]byte, 4<<10)
	if _, err = io.WriteString(c, request); err == nil {
		var n int
		if n, err = c.Read(answer); err == nil && !strings.HasPrefix(string(answer[:n]), fmt.Sprintf("HTTP/1.1 %d", http.StatusOK)) {
			err = errors.New("another status")
		}
	}
	if err != nil {
		_ = c.Close()
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	return c
}
