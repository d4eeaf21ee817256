package supervise

import (
	"net/http"
	"sync/atomic"
)

// load counts the requests of a process.
type load struct {
	requests atomic.Int64 // forwarded so far
	inFlight atomic.Int64 // of these, neither ended nor told the cause of the exit
	suspects atomic.Int64 // forwarded so far, without those that only read
	running  atomic.Int64 // of the suspects, in flight
	answers  atomic.Int64 // that requests in flight ask for, see Work
}

// begin counts a request that is forwarded.
func (l *load) begin(req *http.Request) {
	l.requests.Add(1)
	l.inFlight.Add(1)
	if !onlyReads(req) {
		l.suspects.Add(1)
		l.running.Add(1)
	}
	l.answers.Add(answersOf(req))
}

// end ends what begin has counted.
func (l *load) end(req *http.Request) {
	l.inFlight.Add(-1)
	if !onlyReads(req) {
		l.running.Add(-1)
	}
	l.answers.Add(-answersOf(req))
}

// onlyReads reports whether a request only reads, such as a scrape of /metrics or a
// check of /health. It makes llama-server compute nothing, so it is never the cause of
// an exit: a process that crashes by itself crashes beside scrapes, too.
func onlyReads(req *http.Request) bool {
	return req.Method == "" || req.Method == http.MethodGet || req.Method == http.MethodHead
}

// answersOf returns how many answers from slots a request asks for.
func answersOf(req *http.Request) int64 {
	work := workOf(req.Context())
	if work.NoSlot || onlyReads(req) {
		return 0
	}
	return work.Answers
}
