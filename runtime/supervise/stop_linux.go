package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// shutDown ends the process by the ladder: drain, ask, SIGTERM, SIGKILL.
func (c *Child) shutDown(p *process, drain bool) {
	c.change(Stopping, nil, "asked to stop")
	if drain && c.spec.DrainTimeout > 0 {
		c.drain(p)
	}
	if !drain || !p.askExit() {
		p.signal(unix.SIGTERM)
	}
	half := time.After(c.spec.StopTimeout / 2)
	limit := time.After(c.spec.StopTimeout)
	for {
		select {
		case <-p.exited:
			return
		case <-half:
			p.signal(unix.SIGTERM)
		case <-c.kill:
			p.signal(unix.SIGKILL)
			<-p.exited
			return
		case <-limit:
			c.spec.Log.Warn("llama-server did not end in time and was killed", "pid", p.pid, "after", c.spec.StopTimeout.String())
			p.signal(unix.SIGKILL)
			<-p.exited
			return
		}
	}
}

// drain waits for running requests.
func (c *Child) drain(p *process) {
	limit := time.After(c.spec.DrainTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for c.gate.running.Load() > 0 {
		select {
		case <-limit:
			return
		case <-c.kill:
			return
		case <-p.exited:
			return
		case <-tick.C:
		}
	}
}
