package fakellama

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// errCut aborts a connection in the middle of a response.
var errCut = errors.New("the script cuts the connection")

// out writes a response with its faults.
type out struct {
	w       http.ResponseWriter
	flush   *http.ResponseController
	s       *Server
	ctx     context.Context // of the request that is answered
	faults  []Fault
	end     string                   // of a line
	said    func(text string) []byte // an event with a text
	mu      sync.Mutex
	events  int
	bytes   int
	started bool
	ended   bool // in good order, by a fault
	trickle bool
	whole   bool // no stream: events are counted alone
}

// stream responds with events. Several prompts share the stream and differ by
// their index.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, tasks []*task) {
	o := s.newOut(w, r, tasks[0].fault)
	first := tasks[0]
	o.said = func(text string) []byte {
		return encode(first.as.partial(first, event{Content: text, Tokens: []int32{firstByte + 'x'}, Slot: -1}))
	}
	ctx, cancel := s.clientContext(r)
	defer cancel()
	failed := each(ctx, tasks, func(ctx context.Context, _ int, t *task) error { return o.task(ctx, t) })
	if failed == nil && first.as.done && !o.ended && !o.has(KindNoFinal) {
		failed = o.send([]byte("[DONE]"))
	}
	if failed != nil {
		panic(http.ErrAbortHandler)
	}
	if o.has(KindHangEnd) {
		s.hang(r)
	}
}

// finish responds without a stream: with v, or with the error.
func (o *out) finish(r *http.Request, v any, err error) {
	if own := (*apiError)(nil); errors.As(err, &own) {
		writeError(o.w, own)
		return
	}
	if err == nil && len(o.faults) == 0 {
		writeJSON(o.w, v)
		return
	}
	if err == nil {
		err = o.respond(encode(v))
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if o.has(KindHangEnd) {
		o.s.hang(r)
	}
}

// respond writes a whole response with its Content-Length, so that a client notices
// a truncated one.
func (o *out) respond(body []byte) error {
	o.w.Header().Set("Content-Type", jsonType)
	if !o.has(KindHangEnd) {
		o.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	return o.write(body)
}

func (s *Server) newOut(w http.ResponseWriter, r *http.Request, faults []Fault) *out {
	o := &out{w: w, flush: http.NewResponseController(w), s: s, ctx: r.Context(), faults: faults, end: "\n"}
	if s.script.CRLF {
		o.end = "\r\n"
	}
	o.trickle = o.has(KindTrickle)
	return o
}

func (o *out) has(k Kind) bool {
	return slices.ContainsFunc(o.faults, func(f Fault) bool { return f.Kind == k })
}

// errEnded ends a stream regularly before its final event.
var errEnded = errors.New("the script ends the stream")

func (o *out) task(ctx context.Context, t *task) error {
	err := t.generate(ctx, func(e event) error { return o.event(encode(t.as.partial(t, e))) })
	if err == nil && !o.has(KindNoFinal) {
		err = o.event(encode(t.as.final(t, true)))
	}
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// event sends one event, after the faults of the script for this place.
func (o *out) event(data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.started && !o.whole {
		o.started = true
		o.w.Header().Set("Content-Type", "text/event-stream")
		o.w.Header().Set("X-Accel-Buffering", "no")
	}
	for _, f := range o.faults {
		if f.AfterBytes == 0 && f.AfterTokens == o.events {
			if err := o.inject(f, data); err != nil {
				o.ended = errors.Is(err, errEnded)
				return err
			}
		}
	}
	if o.whole {
		o.events++
		return nil
	}
	if n := o.s.script.PingEvery; n > 0 && o.events%n == 0 {
		if err := o.write([]byte(":" + o.end + o.end)); err != nil {
			return err
		}
	}
	o.events++
	o.s.results.sent()
	return o.send(data)
}

func (o *out) send(data []byte) error {
	return o.write([]byte("data: " + string(data) + o.end + o.end))
}

// inject causes a fault before an event.
func (o *out) inject(f Fault, data []byte) error {
	if o.whole {
		return o.replace(f)
	}
	switch f.Kind {
	case KindError:
		if err := o.send(encode(map[string]any{"error": f.apiError()})); err != nil {
			return err
		}
		return errEnded
	case KindGarbage:
		return o.send([]byte(`{"content": "unfinished`))
	case KindOversize:
		return o.send(o.said(strings.Repeat("x", f.Bytes)))
	case KindCutRune:
		whole := append([]byte("data: "), data...)
		for i, ch := range whole {
			if ch >= 0xe0 { // behind the first byte of a rune
				if err := o.write(whole[:i+1]); err != nil {
					return err
				}
				return errCut
			}
		}
		// There is no split rune here: make one.
		if err := o.write([]byte("data: {\"content\":\"\xf0\x9f")); err != nil {
			return err
		}
		return errCut
	case KindCut, KindCrash, KindStall, KindWedge:
		return o.stop(f)
	case KindNoFinal:
		if f.AfterTokens > 0 {
			return errEnded
		}
	case KindStatus, KindNoAnswer, KindFlood, KindHangEnd, KindTrickle: // have their own places
	}
	return nil
}

// replace causes a fault instead of a response without a stream.
func (o *out) replace(f Fault) error {
	switch {
	case f.Kind.atAnyByte():
		return o.stop(f)
	case f.Kind == KindError:
		return f.apiError()
	}
	return nil // of streams alone
}

// stop ends or stalls the connection.
func (o *out) stop(f Fault) error {
	switch f.Kind {
	case KindCrash:
		if o.s.crash != nil {
			sig := f.Signal
			if sig == 0 {
				sig = int(syscall.SIGKILL)
			}
			o.s.crash(sig)
		}
	case KindStall, KindWedge:
		o.s.wedge(f.Kind == KindWedge)
		return o.s.decodes(o.ctx)
	default: // a cut
	}
	return errCut
}

// write sends bytes immediately, up to the place of a fault.
func (o *out) write(b []byte) error {
	for _, f := range o.faults {
		if f.AfterBytes > 0 && o.bytes <= f.AfterBytes && o.bytes+len(b) > f.AfterBytes {
			if err := o.raw(b[:f.AfterBytes-o.bytes]); err != nil {
				return err
			}
			return o.stop(f)
		}
	}
	return o.raw(b)
}

func (o *out) raw(b []byte) error {
	// llama-server looks before each write whether the client has closed its direction
	// of the connection (is_peer_alive in httplib.cpp).
	if err := o.ctx.Err(); err != nil {
		return err
	}
	o.bytes += len(b)
	step := len(b)
	if o.trickle {
		step = 1
	}
	for len(b) > 0 {
		n := min(step, len(b))
		if _, err := o.w.Write(b[:n]); err != nil {
			return err
		}
		if err := o.flush.Flush(); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
