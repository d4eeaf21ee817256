// Package activity records what a service does: the requests that run, the last ones
// that ended, and how busy the service and its cards were in the last quarter of an
// hour. Its memory is bounded, whatever clients do.
//
// A [Log] has the requests. [Log.Begin] adds one, [Request.Update] and
// [Request.Tokens] change it, [Request.End] ends it. [Log.Snapshot] returns them, and
// a [Subscription] reports their changes. A [Sampler] reads the cards and counts
// tokens at an interval.
package activity

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSize is how many ended requests a Log keeps.
const DefaultSize = 200

// Log has the requests that run, and the last ones that ended. Its methods may be
// called from any goroutine.
type Log struct {
	size, capture     int
	prompt, generated atomic.Int64 // tokens of all requests

	mu       sync.Mutex
	seq      uint64
	running  map[uint64]*Request
	recent   []Record // a ring: next is the oldest one once it is full
	next     int
	captured []Capture // the newest last
	subs     map[*Subscription]struct{}
}

// Options configure a Log.
type Options struct {
	// Size is how many ended requests are kept; 0: DefaultSize, negative: none.
	Size int
	// Capture is how many bodies of requests and answers are kept; 0: none.
	Capture int
}

// NewLog returns an empty log.
func NewLog(o Options) *Log {
	size := o.Size
	if size == 0 {
		size = DefaultSize
	}
	return &Log{size: max(size, 0), capture: max(o.Capture, 0), running: map[uint64]*Request{}, subs: map[*Subscription]struct{}{}}
}

// Capture returns Options.Capture.
func (l *Log) Capture() int { return l.capture }

// Tokens returns how many tokens of prompts were computed, and how many were
// generated, since the log was made.
func (l *Log) Tokens() (prompt, generated int64) { return l.prompt.Load(), l.generated.Load() }

// Request is a request that runs.
type Request struct {
	log       *Log
	tokens    atomic.Int64 // generated, as pieces of a stream
	lastPiece atomic.Int64 // its time, in nanoseconds since the arrival
	record    Record       // guarded by log.mu
}

// Begin adds a request that arrives at r.Time. It sets r.Seq.
func (l *Log) Begin(r Record) *Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	r.Seq = l.seq
	if r.Stage == "" {
		r.Stage = Waiting
	}
	q := &Request{log: l, record: r}
	l.running[r.Seq] = q
	l.notify(r.Seq)
	return q
}

// Update changes the record of a request. A nil request has none.
func (q *Request) Update(change func(*Record)) {
	if q == nil {
		return
	}
	q.log.mu.Lock()
	defer q.log.mu.Unlock()
	change(&q.record)
	q.log.notify(q.record.Seq)
}

// Tokens counts n pieces of the answer that arrived at now. It does not allocate,
// and takes a lock for the first piece only.
func (q *Request) Tokens(n int64, now time.Time) {
	if q == nil {
		return
	}
	q.log.generated.Add(n)
	before := q.tokens.Add(n) - n
	since := now.Sub(q.record.Time) // Time does not change
	q.lastPiece.Store(int64(since))
	if before == 0 {
		q.Update(func(r *Record) { r.Stage, r.FirstTokenSeconds = Generating, since.Seconds() })
	}
}

// End ends a request at now, after a last change of its record, and returns the
// record. Its counts of tokens replace what Tokens has counted.
func (q *Request) End(now time.Time, change func(*Record)) Record {
	l := q.log
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &q.record
	q.fill(r, now)
	change(r)
	r.Stage = Done
	if r.TokensPerSecond == 0 {
		r.TokensPerSecond = q.rate(r.GeneratedTokens)
	}
	l.prompt.Add(max(r.PromptTokens-r.CachedTokens, 0))
	l.generated.Add(max(r.GeneratedTokens-q.tokens.Load(), 0))
	delete(l.running, r.Seq)
	l.keep(*r)
	l.notify(r.Seq)
	return *r
}

// fill sets what changes without an Update. The caller holds mu.
func (q *Request) fill(r *Record, now time.Time) {
	r.Seconds = now.Sub(r.Time).Seconds()
	if n := q.tokens.Load(); n > r.GeneratedTokens {
		r.GeneratedTokens = n
		r.TokensPerSecond = q.rate(n)
	}
}

// rate returns the tokens per second after the first of n tokens.
func (q *Request) rate(n int64) float64 {
	seconds := time.Duration(q.lastPiece.Load()).Seconds() - q.record.FirstTokenSeconds
	if n < 2 || seconds <= 0 || q.record.FirstTokenSeconds == 0 {
		return 0
	}
	return float64(n-1) / seconds
}

// keep adds an ended request to the ring. The caller holds mu.
func (l *Log) keep(r Record) {
	switch {
	case l.size == 0:
	case len(l.recent) < l.size:
		l.recent = append(l.recent, r)
	default:
		l.recent[l.next] = r
		l.next = (l.next + 1) % l.size
	}
}

// find returns a request as it is at now. The caller holds mu.
func (l *Log) find(seq uint64, now time.Time) (Record, bool) {
	if q := l.running[seq]; q != nil {
		r := q.record
		q.fill(&r, now)
		return r, true
	}
	for i := range l.recent {
		if l.recent[i].Seq == seq {
			return l.recent[i], true
		}
	}
	return Record{}, false
}

// Snapshot is the content of a log.
type Snapshot struct {
	// Running are the requests that run, in the order of their arrival.
	Running []Record `json:"running"`
	// Recent are the last ones that ended, the last one first.
	Recent []Record `json:"recent"`
}

// Snapshot returns the requests that keep accepts; nil: all.
func (l *Log) Snapshot(keep func(*Record) bool) Snapshot {
	s := Snapshot{Running: []Record{}, Recent: []Record{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, q := range l.running {
		r := q.record
		q.fill(&r, now)
		if keep == nil || keep(&r) {
			s.Running = append(s.Running, r)
		}
	}
	slices.SortFunc(s.Running, func(a, b Record) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range l.recent {
		r := l.recent[(l.next+len(l.recent)-1-i)%len(l.recent)]
		if keep == nil || keep(&r) {
			s.Recent = append(s.Recent, r)
		}
	}
	return s
}

// Counts returns how many requests run, and how many wait.
func (l *Log) Counts() (running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.running {
		if q.record.Stage == Waiting {
			waiting++
		} else {
			running++
		}
	}
	return running, waiting
}
