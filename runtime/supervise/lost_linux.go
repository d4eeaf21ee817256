package supervise

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// lostLine matches what llama-server logs when a Vulkan driver reports that its device is
// lost (ggml-vulkan.cpp, update_slots in server-context.cpp).
var lostLine = regexp.MustCompile(`^[0-9.]+ E (ggml_vulkan: device lost on |srv .*decode\(\) failed: .*ErrorDeviceLost)`)

// lostError is in the answer to each request after that.
const lostError = "ErrorDeviceLost"

// lostTimeout limits a check of the device. Slots of a lost device are soon free.
const lostTimeout = 10 * time.Second

// lostPause is the time between two checks: a client can write such lines, and each check
// takes a slot.
const lostPause = 2 * time.Second

// watchDevice reports to lost that the process has lost its device, until ctx ends. The
// process goes on after that, and answers every request with an error.
//
// A line of the log is only the reason to check: llama-server writes texts of requests into
// its log, for example a grammar that it cannot parse.
func (c *Child) watchDevice(ctx context.Context, p *process, events *startupEvents, lost chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-events.lost:
		}
		if !c.deviceIsLost(ctx, p) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(lostPause): // lines of the pause are checked after it
			}
			continue
		}
		select {
		case lost <- struct{}{}:
		case <-ctx.Done():
		}
		return
	}
}

// deviceIsLost has the process compute a token, or a vector where it offers vectors only.
func (c *Child) deviceIsLost(ctx context.Context, p *process) bool {
	ctx, cancel := context.WithTimeout(ctx, lostTimeout)
	defer cancel()
	client := &http.Client{Transport: p.probeTransport}
	for _, r := range []struct{ path, body string }{
		{"/completion", `{"prompt": "a", "n_predict": 1, "cache_prompt": false}`},
		{"/v1/embeddings", `{"input": "a"}`},
		{"/v1/rerank", `{"query": "a", "documents": ["a"]}`},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.baseURL+r.path, strings.NewReader(r.body))
		if err != nil {
			return false
		}
		req.Header.Set("Authorization", "Bearer "+c.key)
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		_ = res.Body.Close()
		if err != nil || res.StatusCode == http.StatusOK {
			return false
		}
		if bytes.Contains(answer, []byte(lostError)) {
			return true
		}
	}
	return false
}
