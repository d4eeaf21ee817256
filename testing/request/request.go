// Package request sends HTTP requests of tests and reads the whole answers.
package request

import (
	"context"
	"io"
	"net/http"
	"strings"
)

// Answer is the answer to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Send sends a request. header contains names and values alternately; Host sets the host.
func Send(ctx context.Context, method, url, body string, header ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, err
	}
	return Answer{res.StatusCode, res.Header, string(raw)}, nil
}

// SendJSON sends a request with a JSON body and an API key.
func SendJSON(ctx context.Context, method, url, key, body string) (Answer, error) {
	return Send(ctx, method, url, body, "Authorization", "Bearer "+key, "Content-Type", "application/json")
}
