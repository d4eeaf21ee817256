// Package child measures the backend with a real llama-server: the time until it is
// ready, the cost of the tokens on their way to the program, the gain of batching, and
// the memory of a stream.
//
// The peer is a raw reader of the same server: it reads the bytes with net/http and does
// not parse them. The work of the server is the same for both.
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

// Model is a model file and its name in the tables.
type Model struct{ Name, Path string }

// Input selects what to run.
type Input struct {
	// Bundle is a packed bundle or a directory with a llama-server.
	Bundle string
	// Real is a usable model; Tiny is so small that a token takes the server almost no
	// time.
	Real, Tiny Model
	Rounds     int
	// Args are further arguments of llama-server.
	Args []string
	Log  io.Writer
}

func (in *Input) printf(format string, args ...any) {
	fmt.Fprintf(in.Log, "  "+format+"\n", args...)
}

const prompt = "Once upon a time there was a town"

// load loads a model with slots of per tokens each. An empty tcp means a unix socket.
func (in *Input) load(ctx context.Context, m Model, slots, per int, tcp string) (*rocm.Model, error) {
	s := rocm.Settings{}
	s.Bundle, s.TCP = in.Bundle, tcp
	s.Slots, s.Context = slots, slots*per
	s.Args = append([]string{"--ignore-eos"}, in.Args...)
	return (&rocm.Backend{}).Load(ctx, m.Path, s)
}

// request returns a request that generates n tokens greedily.
func request(n int) rocm.Request {
	return rocm.Request{Prompt: rocm.TextPrompt(prompt), GenerateConfig: inference.GenerateConfig{MaxTokens: n}}
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
	// A rune that the last tokens split may be missing. A truncated stream is an error
	// above.
	if p := s.Final().PredictedTokens; p != n {
		return fmt.Errorf("%d tokens predicted, %d asked for", p, n)
	}
	return nil
}

// rawReader requests /completion of a child with net/http alone.
type rawReader struct {
	hc        *http.Client
	base, key string
	body      []byte
}

// raw returns a reader that sends the same request as ours for n tokens.
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
	recorded, err := record(m.Server().Child.HTTPClient(), func() error { return ours(ctx, m, n, nil) })
	if err != nil {
		return nil, err
	}
	r.body = recorded.body
	return r, nil
}

// errRecorded is the error of a request that is recorded and not sent.
var errRecorded = errors.New("recorded")

// recorder records a request and does not send it.
type recorder struct {
	method, path string
	header       http.Header
	body         []byte
}

func (k *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	*k = recorder{r.Method, r.URL.Path, r.Header.Clone(), b}
	return nil, errors.Join(errRecorded, r.Body.Close())
}

// record records the request that send makes with a client. Nothing else may use the
// client meanwhile.
func record(hc *http.Client, send func() error) (*recorder, error) {
	var request recorder
	before := hc.Transport
	hc.Transport = &request
	err := send()
	hc.Transport = before
	switch {
	case errors.Is(err, errRecorded):
		return &request, nil
	case err == nil:
		err = errors.New("no request was sent")
	}
	return nil, fmt.Errorf("record a request: %w", err)
}

// open sends the request.
func (r *rawReader) open(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/completion", bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header["Idempotency-Key"] = nil // retries if the server has just closed an idle connection
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

// read reads one stream and calls first at its first byte.
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
