package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// healthy asks /health of a process once: 0 when nobody answers.
func (c *Child) healthy(ctx context.Context, p *process) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/health", http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := p.probe.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return 0, err
	}
	var body struct {
		Status string `json:"status"`
	}
	if res.StatusCode == http.StatusOK && (json.Unmarshal(raw, &body) != nil || body.Status != "ok") {
		return 0, fmt.Errorf("%w: /health says %.60q, which llama-server does not", ErrWrongPeer, raw)
	}
	return res.StatusCode, nil
}
