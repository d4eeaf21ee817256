// Package child measures the backend over a real llama-server: how soon it is
// ready, what the way to the program costs the tokens, what batching gains, and
// what memory a stream takes.
//
// The peer is always the same server reached with net/http alone: a reader that
// takes the bytes off the socket and looks at nothing. What the server itself
// does is the same for both.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Model is a model file and what it is called in the tables.
type Model struct{ Name, Path string }

// Input says what runs.
type Input struct {
	// Bundle is a packed bundle or a folder with a llama-server.
	Bundle string
	// Real knows things; Tiny is so small that a token costs the server next to
	// nothing.
	Real, Tiny Model
	Rounds     int
	// Args are further arguments for llama-server.
	Args []string
	Log  io.Writer
}

func (in *Input) say(format string, args ...any) {
	fmt.Fprintf(in.Log, "  "+format+"\n", args...)
}

const prompt = "Once upon a time there was a town"

// load starts a model with slots of per tokens each; tcp "" is a unix socket.
func (in *Input) load(ctx context.Context, m Model, slots, per int, tcp string) (*rocm.Model, error) {
	s := rocm.DefaultSettings()
	s.Bundle, s.TCP = in.Bundle, tcp
	s.ParallelSlots, s.ContextLen = slots, slots*per
	s.Args = append([]string{"--ignore-eos"}, in.Args...)
	return (&rocm.Backend{}).Load(ctx, m.Path, s)
}

// request is a greedy generation of n tokens.
func request(n int) rocm.Request {
	return rocm.Request{Prompt: prompt, GenerateConfig: inference.GenerateConfig{MaxTokens: n}}
}

// ours reads one stream to its end and calls first at its first token.
func ours(ctx context.Context, m *rocm.Model, n int, first func()) error {
	s := m.Stream(ctx, request(n))
	got := 0
	for range s.All() {
		if got++; got == 1 && first != nil {
			first()
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	// A rune split over the last tokens may be held back; a stream that was cut
	// short is an error above.
	if p := s.Final().PredictedTokens; p != n {
		return fmt.Errorf("%d tokens predicted, %d asked for", p, n)
	}
	return nil
}

// rawReader reaches a child's /completion without this project.
type rawReader struct {
	hc        *http.Client
	base, key string
	body      []byte
}

// raw makes a reader that sends just what ours sends for n tokens.
func raw(ctx context.Context, m *rocm.Model, n int) (*rawReader, error) {
	child := m.Server().Child
	r := &rawReader{base: "http://" + child.Addr(), key: child.APIKey(), hc: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}}
	if strings.HasPrefix(child.Addr(), "/") {
		path := child.Addr()
		r.base = "http://llama"
		r.hc.Transport = &http.Transport{MaxIdleConnsPerHost: 128, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
	}
	kept, err := record(m.Server().Child.HTTPClient(), func() error { return ours(ctx, m, n, nil) })
	if err != nil {
		return nil, err
	}
	r.body = kept.body
	return r, nil
}

// errKept ends a request that was only made to be looked at.
var errKept = errors.New("kept")

// keeper keeps a request and sends nothing.
type keeper struct {
	method, path string
	header       http.Header
	body         []byte
}

func (k *keeper) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	*k = keeper{r.Method, r.URL.Path, r.Header.Clone(), b}
	return nil, errors.Join(errKept, r.Body.Close())
}

// record keeps the one request that send makes with a client, which nothing else
// uses meanwhile.
func record(hc *http.Client, send func() error) (*keeper, error) {
	var kept keeper
	before := hc.Transport
	hc.Transport = &kept
	err := send()
	hc.Transport = before
	switch {
	case errors.Is(err, errKept):
		return &kept, nil
	case err == nil:
		err = errors.New("none was sent")
	}
	return nil, fmt.Errorf("keeping a request: %w", err)
}

// open sends the request.
func (r *rawReader) open(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/completion", bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header["Idempotency-Key"] = nil // sent again if the server has just closed an idle connection
	resp, err := r.hc.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, errors.Join(fmt.Errorf("status %d: %s", resp.StatusCode, text), err, resp.Body.Close())
	}
	return resp, nil
}

// read takes all bytes of one stream and calls first at the first of them.
func (r *rawReader) read(ctx context.Context, first func()) error {
	resp, err := r.open(ctx)
	if err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 && first != nil {
			first()
			first = nil
		}
		if errors.Is(err, io.EOF) {
			return resp.Body.Close()
		}
		if err != nil {
			return errors.Join(err, resp.Body.Close())
		}
	}
}

func (r *rawReader) close() { r.hc.CloseIdleConnections() }
