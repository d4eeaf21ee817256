package supervise

import (
	"context"
	"time"
)

// admit gives the process that may be asked now, waiting while one starts, and
// counts the request as running until the caller takes it back. Both are one
// step under the lock of the state: a drain, which follows a change of it, waits
// for every request that was let through.
func (c *Child) admit(ctx context.Context) (*process, error) {
	for {
		p, changed, err := c.tryAdmit()
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryAdmit is admit without waiting: where it gives neither a process nor an
// error, the next change may bring one.
func (c *Child) tryAdmit() (p *process, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case Ready:
		// A death is told before the state follows; a request that came in
		// between would use up all its repeats on a socket nobody reads.
		if _, buried := c.deaths[c.cur.gen]; !buried {
			c.gate.running.Add(1)
			return c.cur, nil, nil
		}
	case Stopping, Stopped:
		return nil, nil, ErrStopped
	case Failed:
		return nil, nil, c.err
	case Starting, Loading, Stalled:
	}
	return nil, c.changed, nil
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
			if !p.ending() {
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return nil
		}
	}
}
