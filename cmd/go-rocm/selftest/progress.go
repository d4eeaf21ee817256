package selftest

import (
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// progress reports each second which step runs, and the time that is left.
type progress struct {
	report   func(step StepName, backend plan.Backend, left time.Duration)
	start    time.Time
	deadline time.Time
	stopped  chan struct{}
	ticking  sync.WaitGroup

	mu    sync.Mutex
	now   step
	done  time.Duration // weight of the steps that have ended
	total time.Duration
}

func startProgress(report func(StepName, plan.Backend, time.Duration), steps []step, deadline time.Time) *progress {
	p := &progress{report: report, start: time.Now(), deadline: deadline, stopped: make(chan struct{})}
	for _, s := range steps {
		p.total += s.weight
	}
	if report == nil {
		return p
	}
	p.ticking.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-p.stopped:
				return
			case <-tick.C:
				p.show()
			}
		}
	})
	return p
}

func (p *progress) begin(s step) {
	p.mu.Lock()
	p.now = s
	p.mu.Unlock()
	if p.report != nil {
		p.show()
	}
}

func (p *progress) end(s step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += s.weight
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report(p.now.name, p.now.backend, timeLeft(time.Since(p.start), p.done, p.total, time.Until(p.deadline)))
}

// timeLeft returns the time that is left when steps of the weight done took the time
// elapsed: what they would have taken by their weights is what the rest takes, as much
// slower or faster as these were. It is no longer than the time to the deadline.
func timeLeft(elapsed, done, total, limit time.Duration) time.Duration {
	left := total - done
	if done > 0 {
		left = time.Duration(float64(left) * float64(elapsed) / float64(done))
	}
	return max(0, min(left, limit))
}

func (p *progress) stop() {
	close(p.stopped)
	p.ticking.Wait()
}
