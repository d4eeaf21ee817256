package download

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Client fetches files. Its zero value is ready for use; a Client must not be
// changed after that.
type Client struct {
	// Transport sends the requests; nil: one over HTTP/1.1, so that each range has a
	// connection of its own, with the proxies of HTTPS_PROXY and NO_PROXY.
	Transport http.RoundTripper
	// Credentials returns the Authorization header for a URL, or an empty string.
	// It is asked about each URL of a redirect again.
	Credentials func(*url.URL) string
	// UserAgent names the program; empty: "go-rocm".
	UserAgent string
	// Connections limits how many ranges of a file come at once; 0: DefaultConnections.
	Connections int
	// ChunkSize is the number of bytes that are noted as one; 0: 16 MiB.
	ChunkSize int64
	// IdleTimeout ends a request when no byte comes for this time; 0: one minute.
	IdleTimeout time.Duration
	// Attempts is how many requests may fail one after the other without a byte
	// before the download fails; 0: 6.
	Attempts int
	// Sleep waits between attempts; nil: for that time. Tests replace it.
	Sleep func(context.Context, time.Duration) error
	// Log receives the reasons of repeated requests; nil: nothing is logged.
	Log *slog.Logger
}

// DefaultConnections is the number of ranges of a file that come at once.
const DefaultConnections = 4

const (
	defaultChunk    = 16 << 20
	defaultIdle     = time.Minute
	defaultAttempts = 6
	maxRedirects    = 10
)

var (
	// ErrChanged reports that the file on the server changed while it was fetched.
	ErrChanged = errors.New("the file on the server changed during the download")
	// ErrAnswer reports an answer that violates HTTP or contradicts an earlier one.
	ErrAnswer = errors.New("unusable answer of the server")
	// ErrDigest reports a file whose SHA-256 is not the expected one.
	ErrDigest = errors.New("the file does not have the expected SHA-256")
	// ErrSize reports a file whose size is not the expected one.
	ErrSize = errors.New("the file does not have the expected size")
	// ErrSpace reports a disk without enough free space.
	ErrSpace = errors.New("not enough free space on the disk")
	// ErrRedirect reports too many redirects, or one to an unencrypted address.
	ErrRedirect = errors.New("unusable redirect")
)

// errIdle is the cause of a request that was ended by IdleTimeout.
var errIdle = errors.New("the server sent nothing")

// StatusError is an answer with a status that is neither 200 nor 206.
type StatusError struct {
	Code   int
	URL    string // without query
	Header http.Header
	// RetryAfter is the time that the server asks to wait; 0: it does not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(", retry after %s", e.RetryAfter)
	}
	return s
}

// Temporary reports whether the same request may succeed later.
func (e *StatusError) Temporary() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// DefaultTransport returns a new transport as a Client without one uses it.
func DefaultTransport() *http.Transport {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: DefaultConnections, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 30 * time.Second, Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// sharedTransport keeps its connections for the next request.
var sharedTransport = DefaultTransport()

func (c *Client) logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// authorized adds the credentials of a request's host.
type authorized struct{ c *Client }

// RoundTrip implements http.RoundTripper.
func (a authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.c.Credentials != nil && (req.URL.Scheme == "https" || isLoopback(req.URL.Hostname())) {
		if value := a.c.Credentials(req.URL); value != "" {
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", value)
		}
	}
	if a.c.Transport != nil {
		return a.c.Transport.RoundTrip(req)
	}
	return sharedTransport.RoundTrip(req)
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
	case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || from.Scheme == "https"):
		return fmt.Errorf("%w: from %s to %s, which is not encrypted", ErrRedirect, withoutQuery(from), withoutQuery(req.URL))
	}
	return nil
}

// send sends a GET request. The answer has status 200 or 206 and no encoding. The
// caller closes its body and calls stop.
func (c *Client) send(ctx context.Context, address string, header http.Header) (res *http.Response, stop func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := cmp.Or(c.IdleTimeout, defaultIdle)
	timer := time.AfterFunc(idle, func() { cancel(fmt.Errorf("%w for %s", errIdle, idle)) })
	end := func() { timer.Stop(); cancel(context.Canceled) }
	defer func() {
		if err != nil {
			end()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, withoutURL(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, "go-rocm"))
	res, err = (&http.Client{Transport: authorized{c}, CheckRedirect: checkRedirect}).Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
			err = cause
		}
		return nil, nil, fmt.Errorf("%s: %w", withoutQuery(req.URL), withoutURL(err))
	}
	if err = checkStatus(res); err != nil {
		_ = res.Body.Close()
		return nil, nil, err
	}
	res.Body = &timedBody{ReadCloser: res.Body, ctx: ctx, timer: timer, idle: idle}
	return res, end, nil
}

func checkStatus(res *http.Response) error {
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		return &StatusError{Code: res.StatusCode, URL: withoutQuery(res.Request.URL), Header: res.Header, RetryAfter: retryAfter(res.Header, time.Now())}
	}
	if encoding := res.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return fmt.Errorf("%w: %s sends the file with the encoding %.40q", ErrAnswer, withoutQuery(res.Request.URL), encoding)
	}
	return nil
}

// timedBody restarts the idle timer with each read.
type timedBody struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	idle  time.Duration
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.idle)
	}
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.ctx), errIdle) {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// withoutQuery returns a URL for messages.
func withoutQuery(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// withoutURL removes the address, with its query, that net/http puts before errors.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// Get returns the body of a small answer, of at most limit bytes, and its header.
// It repeats requests that fail for a reason that passes.
func (c *Client) Get(ctx context.Context, address string, limit int64) (body []byte, header http.Header, err error) {
	return c.get(ctx, address, nil, limit)
}

// GetAccept is Get for an answer of one of the media types of an Accept header.
func (c *Client) GetAccept(ctx context.Context, address, accept string, limit int64) (body []byte, err error) {
	body, _, err = c.get(ctx, address, http.Header{"Accept": {accept}}, limit)
	return body, err
}

func (c *Client) get(ctx context.Context, address string, send http.Header, limit int64) (body []byte, header http.Header, err error) {
	err = c.retry(ctx, func() (progress bool, err error) {
		res, stop, err := c.send(ctx, address, send)
		if err != nil {
			return false, err
		}
		defer stop()
		defer func() { _ = res.Body.Close() }()
		header = res.Header
		body, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
		if err == nil && int64(len(body)) > limit {
			err = fmt.Errorf("%w: %s sends more than %d bytes", ErrAnswer, withoutQuery(res.Request.URL), limit)
		}
		return false, err
	})
	return body, header, err
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
