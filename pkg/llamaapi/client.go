package llamaapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Client sends requests to one llama-server. It is safe for concurrent use.
type Client struct {
	base     string
	hc       *http.Client
	key      string
	maxEvent int
	runes    runeCache
}

// Option configures a Client.
type Option func(*Client)

// WithAPIKey sends the key as a bearer token with every request.
func WithAPIKey(key string) Option {
	return func(c *Client) { c.key = key }
}

// WithMaxEventBytes limits the size of one stream event and of one whole
// response, in bytes. The default is 256 MiB, enough for the probabilities of a
// vocabulary of a million tokens.
func WithMaxEventBytes(n int) Option {
	return func(c *Client) { c.maxEvent = n }
}

const defaultMaxEvent = 256 << 20

// New returns a client for the server at baseURL, for example
// "http://127.0.0.1:8080". A path after the host is kept (--api-prefix). For a
// unix socket, pass any host and an *http.Client that dials the socket. A nil hc
// means http.DefaultClient.
func New(baseURL string, hc *http.Client, opts ...Option) *Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	c := &Client{base: strings.TrimRight(baseURL, "/"), hc: hc, maxEvent: defaultMaxEvent}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	return c
}

// send sends the request and returns the response if its status is 200. The
// caller closes the body.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := encodeJSON(in)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// llama-server closes idle connections after five seconds, possibly just as one
	// is reused. An empty key is not sent, but allows the transport to retry on a
	// new connection if no byte of a response arrived.
	req.Header["Idempotency-Key"] = []string{}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.hc.Do(req)
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer closeQuietly(resp.Body)
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil && len(b) == 0 {
		return nil, fmt.Errorf("%s %s: status %d: %w", method, path, resp.StatusCode, err)
	}
	return nil, parseError(resp.StatusCode, b)
}

// call sends the request and decodes the response into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	b, err := c.fetch(ctx, method, path, in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, ErrMalformed, err)
	}
	return nil
}

// fetch sends the request and returns the whole response.
func (c *Client) fetch(ctx context.Context, method, path string, in any) ([]byte, error) {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(resp.Body)
	var b bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= int64(c.maxEvent) {
		b.Grow(int(n) + bytes.MinRead)
	}
	_, err = b.ReadFrom(io.LimitReader(resp.Body, int64(c.maxEvent)+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%s %s: read the response: %w", method, path, err)
	case b.Len() > c.maxEvent:
		return nil, fmt.Errorf("%s %s: %w: more than %d bytes", method, path, ErrEventTooLarge, c.maxEvent)
	}
	return b.Bytes(), nil
}

// closeQuietly closes a body that was read or abandoned; an error has no
// consequence.
func closeQuietly(c io.Closer) {
	_ = c.Close()
}

// encodeJSON is json.Marshal without HTML escapes, which would only make prompts
// longer.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
