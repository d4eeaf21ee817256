package several

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

const prompt = "Once upon a time there was a town"

// client asks one model at one address, and reads the bytes of the answers.
type client struct {
	hc               *http.Client
	base, model, key string
	double           *service // that it alone asks; nil: none
}

// through returns a client that asks a model through a service.
func (s *service) through(file string) *client {
	return &client{hc: newHTTPClient(), base: s.base, model: s.ids[modelName(file)]}
}

// direct returns a client that asks llama-server without a service, over TCP as it asks
// the service. A child that listens on a TCP port is asked itself. One that listens on a
// unix socket, which is faster, has a plain llama-server with its program, its environment
// and its arguments as its double.
func (in *Input) direct(ctx context.Context, s *service, file string) (*client, error) {
	c, err := s.child(file)
	if err != nil {
		return nil, err
	}
	host := c.value("--host")
	if !strings.HasPrefix(host, "/") {
		base := "http://" + net.JoinHostPort(host, c.value("--port"))
		return &client{key: c.key(), model: modelName(file), base: base, hc: newHTTPClient()}, nil
	}
	double, err := in.startPlain(ctx, c, file)
	if err != nil {
		return nil, err
	}
	out := double.through(file)
	out.double = double
	return out, nil
}

func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxStreams}}
}

// fresh returns the client with a connection for each request.
func (c *client) fresh() *client {
	out := *c
	if t, ok := c.hc.Transport.(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true
		out.hc = &http.Client{Transport: t}
	}
	return &out
}

// close closes the connections of the client, and stops what was started for it.
func (c *client) close() error {
	c.hc.CloseIdleConnections()
	if c.double == nil {
		return nil
	}
	return c.double.stop()
}

// open sends a request for a stream of n tokens.
func (c *client) open(ctx context.Context, n int) (*http.Response, error) {
	body := fmt.Appendf(nil, `{"model":%q,"prompt":%q,"n_predict":%d,"stream":true,"temperature":0,"ignore_eos":true,"cache_prompt":false}`, c.model, prompt, n)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/completion", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header["Idempotency-Key"] = nil // retries if the server has just closed an idle connection
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.hc.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return nil, errors.Join(fmt.Errorf("status %d: %s", res.StatusCode, text), err, res.Body.Close())
	}
	return res, nil
}

// stream reads a stream of n tokens and returns the time until its first byte.
func (c *client) stream(ctx context.Context, n int) (first time.Duration, err error) {
	begin := time.Now()
	res, err := c.open(ctx, n)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	var all bytes.Buffer
	buf := make([]byte, 16<<10)
	for {
		got, err := res.Body.Read(buf)
		if got > 0 && first == 0 {
			first = time.Since(begin)
		}
		all.Write(buf[:got])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if want := fmt.Sprintf(`"tokens_predicted":%d,`, n); !bytes.Contains(all.Bytes(), []byte(want)) {
		return 0, fmt.Errorf("no %s in an answer of %d bytes", want, all.Len())
	}
	return first, nil
}

// firstToken measures the time to the first token, in milliseconds: the median of a few
// requests.
func (c *client) firstToken() page.Variant {
	const requests = 9
	return func(ctx context.Context) (float64, error) {
		var samples []float64
		for range requests {
			first, err := c.stream(ctx, 2)
			if err != nil {
				return 0, err
			}
			samples = append(samples, ms(first))
		}
		return page.Median(samples), nil
	}
}

// speed measures the tokens per second of concurrent streams, prompts included.
func (c *client) speed(streams, tokens int) page.Variant {
	return func(ctx context.Context) (float64, error) {
		speed, _, err := c.streams(ctx, streams, tokens)
		return speed, err
	}
}

// streams reads concurrent streams, and returns their tokens per second, prompts included,
// and the median of their times to the first token, in milliseconds.
func (c *client) streams(ctx context.Context, streams, tokens int) (speed, first float64, err error) {
	firsts := make([]float64, streams)
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range firsts {
		g.Go(func() error {
			took, err := c.stream(ctx, tokens)
			firsts[i] = ms(took)
			return err
		})
	}
	err = g.Wait()
	return float64(streams*tokens) / time.Since(begin).Seconds(), page.Median(firsts), err
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
