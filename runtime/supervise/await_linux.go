package supervise

import (
	"context"
	"time"
)

// waitReady gives the process that may be asked now, waiting while one starts.
func (c *Child) waitReady(ctx context.Context) (*process, error) {
	for {
		c.mu.Lock()
		state, p, err, changed := c.state, c.cur, c.err, c.changed
		buried := false
		if p != nil {
			// Its death is told before the state follows; a request that came in
			// between would use up all its repeats on a socket nobody reads.
			_, buried = c.deaths[p.gen]
		}
		c.mu.Unlock()
		switch state {
		case Ready:
			if !buried {
				return p, nil
			}
		case Stopping, Stopped:
			return nil, ErrStopped
		case Failed:
			return nil, err
		case Starting, Loading, Stalled:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// deathOf says why a process died, waiting a moment for the news; nil when it
// lives on.
func (c *Child) deathOf(ctx context.Context, p *process) error {
	sign, limit := time.NewTimer(deathSign), time.NewTimer(deathNews)
	defer sign.Stop()
	defer limit.Stop()
	for {
		c.mu.Lock()
		err, known := c.deaths[p.gen]
		changed := c.changed
		c.mu.Unlock()
		if known {
			return err
		}
		select {
		case <-changed:
		case <-sign.C:
			if alive(p.pid, p.start) {
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return nil
		}
	}
}
