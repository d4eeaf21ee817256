package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what the process has used of the CPU so far, all threads and the
// kernel's work for them included; 0 once it is reaped. It opens nothing.
func (p *process) cpuTime() time.Duration {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if p.reaped {
		return 0
	}
	// The clock of another process, as clock_getcpuclockid(3) makes it of a pid;
	// 2 is CPUCLOCK_SCHED in include/linux/posix-timers_types.h.
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &used); err != nil { //nolint:gosec // pids have 22 bits
		return 0
	}
	return time.Duration(used.Nano())
}

// effort tells from look to look whether a process computes.
type effort struct {
	p      *process
	used   time.Duration
	looked time.Time
}

func newEffort(p *process) *effort { return &effort{p: p, used: p.cpuTime(), looked: time.Now()} }

// goesOn reports whether since the last look at least a fiftieth of one core was
// used: a server that decodes uses several, a small part of one where much else
// runs, and one that only answers /slots next to nothing.
func (e *effort) goesOn() bool {
	used, now := e.p.cpuTime(), time.Now()
	busy := used-e.used >= now.Sub(e.looked)/50
	e.used, e.looked = used, now
	return busy
}
