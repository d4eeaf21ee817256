package activity

import (
	"maps"
	"slices"
	"time"
)

// Subscription collects which requests have changed. A slow receiver misses
// intermediate changes and holds up nobody. It misses the end of a request only where
// so many others ended that the log no longer has it.
type Subscription struct {
	log     *Log
	wake    chan struct{}       // has room for one
	changed map[uint64]struct{} // by Seq; guarded by log.mu
	tokens  map[uint64]int64    // that the receiver knows of, of running requests
}

// Subscribe returns a subscription to all changes from now on. The caller closes it.
func (l *Log) Subscribe() *Subscription {
	s := &Subscription{log: l, wake: make(chan struct{}, 1), changed: map[uint64]struct{}{}, tokens: map[uint64]int64{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs[s] = struct{}{}
	return s
}

// Changed receives a value after changes other than those of the number of tokens.
func (s *Subscription) Changed() <-chan struct{} { return s.wake }

// Take returns the requests that have changed since the last call, in the order of
// their arrival, also those that only have more tokens.
func (s *Subscription) Take() []Record {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for seq, q := range l.running {
		if n := q.tokens.Load(); n != s.tokens[seq] {
			s.tokens[seq] = n
			s.changed[seq] = struct{}{}
		}
	}
	maps.DeleteFunc(s.tokens, func(seq uint64, _ int64) bool { return l.running[seq] == nil })
	now := time.Now()
	var list []Record
	for _, seq := range slices.Sorted(maps.Keys(s.changed)) {
		if r, ok := l.find(seq, now); ok {
			list = append(list, r)
		}
	}
	clear(s.changed)
	return list
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	delete(s.log.subs, s)
}

// notify reports a change to the subscribers. The caller holds mu.
func (l *Log) notify(seq uint64) {
	for s := range l.subs {
		s.changed[seq] = struct{}{}
		if len(s.changed) > 2*(l.size+len(l.running)+1) {
			s.forget()
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// forget drops the changes of requests that the log no longer has. The caller holds
// mu.
func (s *Subscription) forget() {
	oldest := s.log.seq - min(s.log.seq, uint64(s.log.size)) //nolint:gosec // a length
	maps.DeleteFunc(s.changed, func(seq uint64, _ struct{}) bool {
		return seq <= oldest && s.log.running[seq] == nil
	})
}
