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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// both are the service and its peer, if there is one.
type both struct {
	in       *Input
	services []*service
	child    *child // of ours
	section  *page.Section
}

// row adds a row; cells that are missing at its end are empty.
func (b *both) row(cells ...string) {
	for len(cells) < len(b.section.Head) {
		cells = append(cells, "")
	}
	b.section.Rows = append(b.section.Rows, cells)
}

func (b *both) goal(g page.Goal) { b.section.Goals = append(b.section.Goals, g) }

// clients returns the ways to a model: through each service, and to a llama-server
// without it. The caller calls stop.
func (b *both) clients(ctx context.Context, file string) (all []*client, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	for _, s := range b.services {
		through := s.through(file)
		stops = append(stops, through.close)
		if _, err := through.stream(ctx, 2); err != nil { // it loads the model
			return nil, nil, fmt.Errorf("%s: %w", s.name, err)
		}
		direct, err := b.in.direct(ctx, s, file)
		if err != nil {
			return nil, nil, err
		}
		stops = append(stops, direct.close)
		if _, err := direct.stream(ctx, 2); err != nil {
			return nil, nil, fmt.Errorf("the child of %s: %w", s.name, err)
		}
		all = append(all, through, direct)
	}
	return all, stop, nil
}

// compare measures the ways in turn and adds a row. With difference the columns
// compare by differences in milliseconds, otherwise by ratios.
func (b *both) compare(ctx context.Context, what string, rounds int, clients []*client, of func(*client) page.Variant, difference bool) (ours float64, err error) {
	var variants []page.Variant
	for _, c := range clients {
		variants = append(variants, of(c))
	}
	for _, warm := range variants { // open connections, fill buffers
		if _, err := warm(ctx); err != nil {
			return 0, err
		}
	}
	samples, err := page.Interleave(ctx, rounds, variants...)
	if err != nil {
		return 0, err
	}
	compare, format := page.Ratios, page.Ratio
	if difference {
		compare, format = page.Differences, func(v float64) string { return fmt.Sprintf("%+.3f", v) }
	}
	cells := []string{what, fmt.Sprint(rounds)}
	for i := 0; i < len(samples); i += 2 {
		each := compare(samples[i], samples[i+1])
		low, high := page.ConfidenceInterval(each)
		cells = append(cells, page.Figure(page.Median(samples[i])), page.Figure(page.Median(samples[i+1])),
			fmt.Sprintf("%s (%s to %s)", format(page.Median(each)), format(low), format(high)))
		if i == 0 {
			ours = page.Median(each)
		}
	}
	b.in.printf("%s", strings.Join(cells, ", "))
	b.row(cells...)
	return ours, nil
}

// firstToken measures the time to the first token, and what a connection for each
// request costs.
func (b *both) firstToken(ctx context.Context) (err error) {
	clients, stop, err := b.clients(ctx, fileTiny)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	rounds := 5 * b.in.Rounds
	difference, err := b.compare(ctx, "ms to the first token, "+b.in.TinyName, rounds, clients, (*client).firstToken, true)
	if err != nil {
		return err
	}
	b.goal(page.Goal{What: "the gateway, to the first token:", Got: difference, Limit: 0.3, Unit: "ms"})
	// New connections against kept ones: through the services, and to the children.
	var fresh []*client
	for i := 0; i < len(clients); i += 2 {
		fresh = append(fresh, clients[i].fresh(), clients[i])
	}
	_, err = b.compare(ctx, "ms to the first token, with a new connection for each request of the client, and with a kept one in the column of the child", rounds, fresh, (*client).firstToken, true)
	if err != nil {
		return err
	}
	fresh = nil
	for i := 1; i < len(clients); i += 2 {
		fresh = append(fresh, clients[i].fresh(), clients[i])
	}
	_, err = b.compare(ctx, "the same to the children, without the services", rounds, fresh, (*client).firstToken, true)
	return err
}

// speeds measures the tokens per second of concurrent streams.
func (b *both) speeds(ctx context.Context) error {
	for _, c := range []struct {
		file, name string
		levels     []Level
		goal       bool
	}{{fileTiny, b.in.TinyName, b.in.TinyLevels, false}, {fileA, b.in.RealName, b.in.Levels, true}} {
		if err := b.speedsOf(ctx, c.file, c.name, c.levels, c.goal); err != nil {
			return err
		}
	}
	return nil
}

// speedsOf measures them of one model.
func (b *both) speedsOf(ctx context.Context, file, name string, levels []Level, goal bool) (err error) {
	clients, stop, err := b.clients(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, l := range levels {
		speed := func(c *client) page.Variant { return c.speed(l.Streams, l.Tokens) }
		ratio, err := b.compare(ctx, fmt.Sprintf("tokens per second, %d streams of %d, %s", l.Streams, l.Tokens, name), l.Rounds, clients, speed, false)
		if err != nil {
			return err
		}
		if goal {
			b.goal(page.Goal{What: fmt.Sprintf("the gateway, tokens per second of %d streams, of the child's:", l.Streams), Got: ratio, Limit: 0.99, AtLeast: true})
		}
	}
	return nil
}

// swap measures the time until a model answers that replaces another one.
func (b *both) swap(ctx context.Context) (err error) {
	next := map[*service]string{}
	variant := func(s *service) page.Variant {
		clients := map[string]*client{fileA: s.through(fileA), fileB: s.through(fileB)}
		return func(ctx context.Context) (float64, error) {
			file := fileB
			if next[s] == fileA {
				file = fileA
			}
			next[s] = other(file)
			begin := time.Now()
			_, err := clients[file].stream(ctx, 1)
			return time.Since(begin).Seconds(), err
		}
	}
	var peer page.Variant
	name := "the router"
	if len(b.services) > 1 {
		peer = variant(b.services[1])
	} else {
		name = "a plain llama-server, stopped and started"
		var stop func() error
		if peer, stop, err = b.restarts(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	ours := variant(b.services[0])
	for _, v := range []page.Variant{ours, ours, peer, peer} { // both have been read from the disk
		if _, err := v(ctx); err != nil {
			return fmt.Errorf("swap: %w", err)
		}
	}
	samples, err := page.Interleave(ctx, b.in.Rounds, ours, peer)
	if err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	for _, s := range b.services { // the last model alone is loaded
		if _, err := s.child(next[s]); err == nil {
			return fmt.Errorf("%s has two models loaded, so that nothing was replaced", s.name)
		}
	}
	ratios := page.Ratios(samples[0], samples[1])
	low, high := page.ConfidenceInterval(ratios)
	b.in.printf("swap: %s s, %s %s s", page.Figure(page.Median(samples[0])), name, page.Figure(page.Median(samples[1])))
	b.row("seconds to swap two models, "+b.in.RealName, fmt.Sprint(b.in.Rounds), page.Figure(page.Median(samples[0])), "", "", page.Figure(page.Median(samples[1])), "",
		fmt.Sprintf("go-rocm to %s: %s (%s to %s)", name, page.Ratio(page.Median(ratios)), page.Ratio(low), page.Ratio(high)))
	b.goal(page.Goal{What: "a swap of two models, of the time of " + name + ":", Got: page.Median(ratios), Limit: 1})
	return nil
}

// other returns the other one of the two usable models.
func other(file string) string { return map[string]string{fileA: fileB, fileB: fileA}[file] }

// restarts returns a variant that stops a plain llama-server, and starts one with the
// other model.
func (b *both) restarts(ctx context.Context) (swap page.Variant, stop func() error, err error) {
	file := fileA
	s, err := b.in.startPlain(ctx, b.child, file)
	if err != nil {
		return nil, nil, err
	}
	swap = func(ctx context.Context) (float64, error) {
		begin := time.Now()
		if err := s.stop(); err != nil {
			return 0, err
		}
		file = other(file)
		next, err := b.in.startPlain(ctx, b.child, file)
		if err != nil {
			return 0, err
		}
		s = next
		_, err = s.through(file).stream(ctx, 1)
		return time.Since(begin).Seconds(), err
	}
	return swap, func() error { return s.stop() }, nil
}

// memory measures what an open stream takes in a service. It is the first step: the
// memory of a program that has had many streams does not grow with further ones.
func (b *both) memory(ctx context.Context) error {
	cells := []string{fmt.Sprintf("KiB of memory for each of %d open streams", b.in.slots), "1"}
	for _, s := range b.services {
		c := s.through(fileTiny)
		if _, err := c.stream(ctx, 2); err != nil {
			return err
		}
		before, err := s.residentKiB()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		var first sync.WaitGroup
		var failed atomic.Value
		var open errgroup.Group
		first.Add(b.in.slots)
		for range b.in.slots {
			open.Go(func() error {
				res, err := c.open(ctx, slotTokens-32)
				if err == nil {
					_, err = io.ReadFull(res.Body, make([]byte, 1))
				}
				if err != nil {
					failed.CompareAndSwap(nil, err)
				}
				first.Done()
				if res == nil {
					return nil
				}
				<-ctx.Done() // unread
				return res.Body.Close()
			})
		}
		first.Wait()
		after, err := s.residentKiB()
		cancel()
		_ = open.Wait()
		_ = c.close()
		if cause, ok := failed.Load().(error); ok {
			err = errors.Join(err, cause)
		}
		if err != nil {
			return fmt.Errorf("memory of %s: %w", s.name, err)
		}
		cells = append(cells, page.Figure((after-before)/float64(b.in.slots)), "", "")
	}
	b.in.printf("%s", strings.Join(cells, ", "))
	b.row(cells...)
	return nil
}

// idleTime limits the time in which a service accepts the idle connections.
const idleTime = 20 * time.Second

// idle opens connections that send one request and then nothing, and measures what they
// take, and whether a further client gets an answer.
func (b *both) idle(ctx context.Context) error {
	open := []string{fmt.Sprintf("idle connections open, of %d that %s allow", b.in.Idle, idleTime), "1"}
	memory := []string{"KiB of memory for each of them", "1"}
	answer := []string{"ms to the first token beside them", "1"}
	for _, s := range b.services {
		file := fileTiny
		if _, err := s.through(file).stream(ctx, 2); err != nil {
			return err
		}
		before, err := s.residentKiB()
		if err != nil {
			return err
		}
		conns := openIdle(ctx, s.base, b.in.Idle)
		after, err := s.residentKiB()
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, idleTime)
		took, err := s.through(file).fresh().firstToken()(limited)
		cancel()
		says := page.Figure(took)
		switch {
		case err != nil && s == b.services[0]:
			return fmt.Errorf("beside %d idle connections: %w", len(conns), err)
		case err != nil:
			says = "no answer in " + idleTime.String()
		}
		for _, c := range conns {
			_ = c.Close()
		}
		if s == b.services[0] {
			b.goal(page.Goal{What: "idle connections that the gateway has open:", Got: float64(len(conns)), Limit: float64(b.in.Idle), Unit: "connections", AtLeast: true})
		}
		open = append(open, fmt.Sprint(len(conns)), "", "")
		memory = append(memory, page.Figure((after-before)/max(float64(len(conns)), 1)), "", "")
		answer = append(answer, says, "", "")
	}
	for _, cells := range [][]string{open, memory, answer} {
		b.in.printf("%s", strings.Join(cells, ", "))
		b.row(cells...)
	}
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
