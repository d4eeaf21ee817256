package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"time"
)

// slotState is what of an entry of GET /slots tells progress. The server writes
// more; its meaning is in tools/server/README.md.
type slotState struct {
	ID         int   `json:"id"`
	Task       int64 `json:"id_task"`
	Processing bool  `json:"is_processing"`
	Prompt     int64 `json:"n_prompt_tokens"`
	Prefilled  int64 `json:"n_prompt_tokens_processed"`
	Next       []struct {
		Decoded int64 `json:"n_decoded"`
	} `json:"next_token"`
}

// errNoSlots says that the server does not show its slots.
var errNoSlots = errors.New("the server does not offer /slots")

// slotsDigest reads /slots and condenses it: the digest changes whenever any
// token moved; busy tells whether any slot works.
func slotsDigest(ctx context.Context, hc *http.Client, base, key string) (digest uint64, busy bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/slots", http.NoBody)
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := hc.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return 0, false, err
	}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusNotImplemented, http.StatusForbidden, http.StatusUnauthorized:
		return 0, false, fmt.Errorf("%w: %s", errNoSlots, res.Status)
	default:
		return 0, false, fmt.Errorf("/slots: %s", res.Status)
	}
	return parseSlots(raw)
}

func parseSlots(raw []byte) (digest uint64, busy bool, err error) {
	var slots []slotState
	if err := json.Unmarshal(raw, &slots); err != nil {
		return 0, false, fmt.Errorf("/slots: %w", err)
	}
	h := fnv.New64a()
	for _, s := range slots {
		var decoded int64
		if len(s.Next) > 0 {
			decoded = s.Next[0].Decoded
		}
		busy = busy || s.Processing
		_, _ = fmt.Fprintln(h, s.ID, s.Task, s.Processing, s.Prompt, s.Prefilled, decoded)
	}
	return h.Sum64(), busy, nil
}

// observation is what the watcher tells the owner of the state.
type observation struct {
	stalled bool
	idle    time.Duration // how long nothing moved
	err     error         // the judgement is not possible any more
}

// watch judges the process by token progress while requests run, until ctx
// ends; for a server on the CPU what it computes counts as well. It asks nothing
// while nothing runs, so a sleeping server sleeps on; what the server tells of its
// state while it wakes counts as progress.
//
// While nothing runs the clock stands still and is not set back: requests whose
// callers give up sooner than a stall is called one, again and again, show it in
// the end. A server that does decode shows progress at the first look at the next.
func (c *Child) watch(ctx context.Context, p *process, n *news, out chan<- observation) {
	limit := c.spec.StallTimeout
	every := min(max(limit/8, 20*time.Millisecond), 5*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	hc := &http.Client{Transport: p.probe}
	send := func(o observation) {
		select {
		case out <- o:
		case <-ctx.Done():
		}
	}
	var last uint64
	work := newEffort(p)
	moved, stalled := time.Now(), false
	for looked := moved; ; looked = time.Now() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.gate.running.Load() == 0 && !stalled {
			moved = moved.Add(time.Since(looked))
		} else {
			// A server that is wedged in a decode goes on answering, always the
			// same (v0.5.0: yield_to_queue in server-context.cpp); one whose main
			// thread hangs elsewhere never does: the deadline is this look's own.
			look, cancel := context.WithTimeout(ctx, max(every, time.Second))
			digest, busy, err := slotsDigest(look, hc, c.base, c.key)
			cancel()
			switch {
			case errors.Is(err, errNoSlots):
				send(observation{err: err})
				return
			case err == nil && (digest != last || !busy):
				last, moved = digest, time.Now()
			}
		}
		if told := n.told(); told.After(moved) {
			moved = told
		}
		if work.goesOn() && c.spec.CPUOnly {
			moved = time.Now()
		}
		idle := time.Since(moved)
		if now := idle > limit; now != stalled {
			stalled = now
			send(observation{stalled: now, idle: idle})
		}
	}
}
