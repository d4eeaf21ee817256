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

	"golang.org/x/sys/unix"
)

// maxComputing is how many StallTimeouts a process may compute without a token.
// CPU time counts as progress no longer than that: threads that spin while they wait
// for each other also use it.
const maxComputing = 10

// observation is what the watcher reports to the loop that owns the state.
type observation struct {
	stalled    bool
	unanswered bool          // the stall is that of a request that is in no slot
	beside     bool          // of one that other requests compute beside
	alone      bool          // and no other request would be lost with the process
	idle       time.Duration // how long there was no progress
	err        error         // progress can no longer be read
}

// watch judges the process by token progress while requests run, until ctx ends.
// While nothing runs, watch asks for nothing, so that a sleeping server sleeps on.
// The state lines of a server that wakes up count as progress.
//
// With Spec.CPUOnly the CPU time that the process uses counts as progress too, but
// only if /slots answers. llama-server v0.5.0 runs each decode, each encoding of an
// image and each draft beside its queue (yield_to_queue in server-context.cpp), so a
// slow prompt leaves /slots answering. Samplers, their grammars and their penalties
// run in the queue's own thread: while one of them computes without end, /slots does
// not answer. CPU time counts for maxComputing StallTimeouts without a token.
//
// A request that has no response while no slot computes counts as running: the threads
// of the HTTP server expand chat templates, which may loop for some messages. The CPU
// time of such a loop is no progress. Beside other requests outsideSlots finds it.
//
// While nothing runs the clock stops and is not reset: clients that give up
// sooner than StallTimeout, repeatedly, do not hide a stall. A server that
// does decode shows progress at the first check of the next request.
func (c *Child) watch(ctx context.Context, p *process, events *startupEvents, out chan<- observation, limit time.Duration, cpuOnly bool) {
	interval := min(max(limit/8, 20*time.Millisecond), 5*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	client := &http.Client{Transport: p.probeTransport}
	send := func(o observation) {
		select {
		case out <- o:
		case <-ctx.Done():
		}
	}
	var last uint64
	cpu := newCPUProgress(p)
	token, stalled := time.Now(), false // when a token was last produced, or nothing ran
	progress := token                   // the same, or when the process last computed
	inSlot := true                      // something computed at the last check, or it is not known
	var history slotHistory
	var suspected time.Time // since when a request computes outside the slots
	alone := false
	for checked := token; ; checked = time.Now() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// On a machine that is busy with other work, the check itself may come late. That
		// says nothing of the server.
		late := lateness(time.Since(checked), interval)
		token, progress = token.Add(late), progress.Add(late)
		p.unanswered.postpone(late)
		computed := cpu.advanced() && cpuOnly
		outside := 0 // requests
		if c.transport.active.Load() == 0 && !p.unanswered.any() && !stalled {
			idle := time.Since(checked) - late
			token, progress = token.Add(idle), progress.Add(idle)
		} else {
			// A server that is wedged in a decode goes on answering, always the same. One
			// whose main thread hangs elsewhere never answers: the check has a deadline of
			// its own.
			streams := p.streams.waiting()
			check, cancel := context.WithTimeout(ctx, max(interval, time.Second))
			slots, err := readSlots(check, client, c.baseURL, c.key)
			cancel()
			if err == nil {
				outside = history.outside(&p.unanswered, slots, p.streams.still(streams, time.Now().Add(-limit)), events.lastStateLine(), time.Now(), limit)
			}
			digest, busy := digestOf(slots)
			inSlot = err != nil || busy
			switch {
			case errors.Is(err, errNoSlots):
				send(observation{err: err})
				return
			case err == nil && digest != last:
				last, token = digest, time.Now()
			case !inSlot:
				// Nothing computes. A request that waits all the same is in a thread of the
				// HTTP server, which expands the chat template.
				if sent := p.unanswered.oldest(time.Now()); sent.After(token) {
					token = sent
				}
			case err == nil && computed && time.Since(token) < maxComputing*limit:
				progress = time.Now()
			}
		}
		for _, at := range []time.Time{token, events.lastStateLine()} {
			if at.After(progress) {
				progress = at
			}
		}
		idle := time.Since(progress)
		switch {
		case outside == 0:
			suspected = time.Time{}
		case suspected.IsZero():
			suspected = time.Now()
		}
		// An answer that is being written is outside the slots, too, for a moment.
		beside := outside > 0 && time.Since(suspected) >= limit/2
		if beside {
			idle = max(idle, limit)
		}
		wasAlone := alone
		alone = beside && !inSlot && p.streams.none()
		if now := idle > limit || beside; now != stalled || alone && !wasAlone {
			stalled = now
			send(observation{stalled: now, idle: idle, unanswered: !inSlot || beside, beside: beside, alone: alone})
		}
	}
}

// lateness returns how much later than twice the interval a check came that follows
// the last one by gap; 0 if it did not.
func lateness(gap, interval time.Duration) time.Duration { return max(0, gap-2*interval) }

// slotState is the part of an entry of GET /slots that shows progress. The
// meaning of its members is in tools/server/README.md.
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

// errNoSlots means that the server does not offer its slots.
var errNoSlots = errors.New("the server does not offer /slots")

// readSlots reads /slots.
func readSlots(ctx context.Context, client *http.Client, baseURL, key string) ([]slotState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/slots", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusNotImplemented, http.StatusForbidden, http.StatusUnauthorized:
		return nil, fmt.Errorf("%w: %s", errNoSlots, res.Status)
	default:
		return nil, fmt.Errorf("/slots: %s", res.Status)
	}
	var slots []slotState
	if err := json.Unmarshal(raw, &slots); err != nil {
		return nil, fmt.Errorf("/slots: %w", err)
	}
	return slots, nil
}

// digestOf returns a digest of the slots, which changes with every token, and
// reports whether any slot is processing.
func digestOf(slots []slotState) (digest uint64, busy bool) {
	h := fnv.New64a()
	for _, s := range slots {
		var decoded int64
		if len(s.Next) > 0 {
			decoded = s.Next[0].Decoded
		}
		busy = busy || s.Processing
		_, _ = fmt.Fprintln(h, s.ID, s.Task, s.Processing, s.Prompt, s.Prefilled, decoded)
	}
	return h.Sum64(), busy
}

// cpuProgress reports from check to check whether a process computes.
type cpuProgress struct {
	p    *process
	used time.Duration
	at   time.Time
}

func newCPUProgress(p *process) *cpuProgress {
	return &cpuProgress{p: p, used: p.cpuTime(), at: time.Now()}
}

// advanced reports whether the process used at least a fiftieth of one core
// since the last call. A server that decodes uses several cores, or a small part
// of one on a busy machine; a server that only answers /slots uses next to
// nothing.
func (c *cpuProgress) advanced() bool {
	used, now := c.p.cpuTime(), time.Now()
	busy := used-c.used >= now.Sub(c.at)/50
	c.used, c.at = used, now
	return busy
}

// cpuTime returns the CPU time that the process has used so far, of all threads
// and of the kernel on their behalf; 0 once it is reaped. It opens no file.
func (p *process) cpuTime() time.Duration {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if p.reaped {
		return 0
	}
	// The clock of another process, as clock_getcpuclockid(3) derives it from a pid;
	// 2 is CPUCLOCK_SCHED in include/linux/posix-timers_types.h.
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &used); err != nil { //nolint:gosec // pids have 22 bits
		return 0
	}
	return time.Duration(used.Nano())
}
