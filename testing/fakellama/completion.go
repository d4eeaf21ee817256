package fakellama

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"time"
)

// request holds the members of a completion request that the fake uses.
type request struct {
	Prompt      json.RawMessage `json:"prompt"`
	Stream      bool            `json:"stream"`
	Predict     *int            `json:"n_predict"`
	MaxTokens   *int            `json:"max_tokens"`
	Temperature *float64        `json:"temperature"`
	Seed        *int64          `json:"seed"`
	Stop        []string        `json:"stop"`
	Probs       int             `json:"n_probs"`
	Post        bool            `json:"post_sampling_probs"`
	PerToken    bool            `json:"timings_per_token"`
	Tokens      bool            `json:"return_tokens"`
	Progress    bool            `json:"return_progress"`
	Fields      []string        `json:"response_fields"`
	Grammar     string          `json:"grammar"`
	Bias        json.RawMessage `json:"logit_bias"`
}

// limit parses a limit and keeps its low 32 bits, as llama-server does.
func (r *request) limit() int {
	for _, n := range []*int{r.Predict, r.MaxTokens} {
		if n != nil {
			return int(int32(*n))
		}
	}
	return -1
}

// seed returns the seed of the generated text, 0 when greedy. The low 32 bits
// count; all bits set means a random seed (LLAMA_DEFAULT_SEED).
func (r *request) seed() uint64 {
	if r.Temperature != nil && *r.Temperature == 0 {
		return 0
	}
	if r.Seed != nil && uint32(*r.Seed) != math.MaxUint32 {
		return 1 + uint64(uint32(*r.Seed))
	}
	return rand.Uint64()
}

// task is one prompt of a request.
type task struct {
	s       *Server
	req     *request
	index   int
	prompt  []int32
	reply   string
	fault   []Fault
	as      shape
	slot    int
	cached  int
	started time.Time
	first   time.Time
	sampled []int32
	text    string // all text
	sent    int    // bytes of text that events told
	stop    string // stop_type
	word    string
	full    bool // the context was full
	probs   []map[string]any
}

// completion handles /completion.
func (s *Server) completion(w http.ResponseWriter, r *http.Request) {
	var req request
	if !decode(w, r, &req) {
		return
	}
	s.run(w, r, &req, native())
}

func (s *Server) run(w http.ResponseWriter, r *http.Request, req *request, as shape) {
	faults, rejected := s.begin(w, r)
	if rejected {
		return
	}
	prompts, bad := s.promptTokens(req.Prompt)
	if bad == nil && strings.Contains(req.Grammar, "\x00") {
		bad = errRequest("failed to parse grammar")
	}
	if bad != nil {
		writeError(w, bad)
		return
	}
	tasks := make([]*task, len(prompts))
	for i, p := range prompts {
		if len(p) >= s.script.ContextLen {
			writeError(w, &apiError{
				status: 400, Type: "exceed_context_size_error", Prompt: len(p), Context: s.script.ContextLen,
				Message: fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it",
					len(p), s.script.ContextLen),
			})
			return
		}
		tasks[i] = &task{s: s, req: req, index: i, prompt: p, reply: s.script.Reply, fault: faults, as: as}
	}
	if req.Stream {
		s.stream(w, r, tasks)
		return
	}
	s.unary(w, r, tasks)
}

// begin counts a completion and returns its faults. It reports whether a fault has
// replaced the response.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (faults []Fault, rejected bool) {
	s.mu.Lock()
	s.requests++
	number := s.requests
	s.mu.Unlock()
	for _, f := range s.script.Faults {
		if f.Request == 0 || f.Request == number {
			faults = append(faults, f)
		}
	}
	return faults, s.reject(w, r, faults)
}

// reject handles the faults that replace the response.
func (s *Server) reject(w http.ResponseWriter, r *http.Request, faults []Fault) bool {
	for _, f := range faults {
		switch f.Kind {
		case KindNoAnswer:
			s.hang(r)
		case KindStatus:
			writeError(w, f.apiError())
			return true
		case KindFlood:
			if s.flood != nil {
				s.flood(f.Bytes)
			}
		case KindError, KindCrash, KindStall, KindWedge, KindCut, KindCutRune, KindNoFinal, KindOversize, KindGarbage,
			KindHangEnd, KindTrickle: // of the stream
		}
	}
	return false
}

func (f Fault) apiError() *apiError {
	e := &apiError{status: f.Status, Type: f.Type, Message: f.Message}
	if e.status == 0 {
		e.status = 500
	}
	if e.Type == "" {
		e.Type = "server_error"
	}
	if e.Message == "" {
		e.Message = "scripted fault"
	}
	e.Code = e.status
	return e
}

// unary responds without a stream.
func (s *Server) unary(w http.ResponseWriter, r *http.Request, tasks []*task) {
	o := s.newOut(w, r, tasks[0].fault)
	o.whole = true
	results := make([]any, len(tasks))
	ctx, cancel := s.clientContext(r)
	defer cancel()
	defer s.results.sent()
	err := each(ctx, tasks, func(ctx context.Context, i int, t *task) error {
		err := t.generate(ctx, func(event) error { return o.event(nil) })
		if err != nil {
			return err
		}
		results[i] = t.as.final(t, false)
		return o.event(nil)
	})
	if len(results) == 1 {
		o.finish(r, results[0], err)
		return
	}
	o.finish(r, results, err)
}

// each runs the tasks in parallel. The first failure cancels the others, and each
// returns its error.
func each(ctx context.Context, tasks []*task, do func(ctx context.Context, i int, t *task) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(tasks))
	for i, t := range tasks {
		go func() { errs <- do(ctx, i, t) }()
	}
	var failed error
	for range tasks {
		if err := <-errs; err != nil && failed == nil {
			failed = err
			cancel()
		}
	}
	return failed
}

// generate runs the task in a slot and calls back for each token with an event.
func (t *task) generate(ctx context.Context, emit func(event) error) error {
	t.started = time.Now()
	var err error
	if t.slot, t.cached, err = t.s.slots.acquire(ctx, t.prompt, t.req.limit()); err != nil {
		return err
	}
	defer t.s.slots.release(t.slot)
	t.started = time.Now()
	if t.req.Progress && len(t.prompt) > 0 {
		if err := emit(t.progressEvent()); err != nil {
			return err
		}
	}
	if err := t.s.prefill(ctx); err != nil {
		return err
	}
	t.first = time.Now()
	switch {
	case len(t.prompt) == 0: // nothing to begin with: an empty answer (server-context.cpp)
		t.stop = "none"
		return nil
	case t.req.limit() == 0:
		t.stop = "limit"
		return nil
	}
	model := newSampler(t.s.vocab, t.prompt, t.req.seed(), t.reply, t.s.script.NeverEnds)
	for t.stop == "" {
		if len(t.sampled) > 0 {
			if err := sleep(ctx, t.s.script.TokenDelay); err != nil {
				return err
			}
		}
		if err := t.s.decodes(ctx); err != nil {
			return err
		}
		if err := t.sample(model, emit); err != nil {
			return err
		}
	}
	return nil
}

// prefill waits for the time of prompt processing, during which no counter of
// /slots changes.
func (s *Server) prefill(ctx context.Context) error {
	if !s.script.PromptBusy {
		return sleep(ctx, s.script.PromptDelay)
	}
	const busy, rest = 5 * time.Millisecond, 15 * time.Millisecond
	for end := time.Now().Add(s.script.PromptDelay); time.Now().Before(end); {
		for start := time.Now(); time.Since(start) < busy; {
			runtime.Gosched()
		}
		if err := sleep(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

// sample samples a token, as process_token in server-context.cpp does.
func (t *task) sample(model *sampler, emit func(event) error) error {
	likely := model.next()
	id := t.s.vocab.biased(likely, t.req.Bias)
	t.sampled = append(t.sampled, id)
	t.s.slots.decoded(t.slot, len(t.sampled))
	piece := t.s.vocab.piece(id)
	t.text += piece
	if !incomplete(t.text) {
		show := t.visible(len(piece), ends(id))
		if t.req.Probs > 0 {
			t.probs = append(t.probs, t.probsOf(model, likely, id, show))
		}
		if err := emit(t.tokenEvent(id, show)); err != nil {
			return err
		}
	}
	switch {
	case ends(id):
		t.stop = "eos"
	case t.stop != "": // a stop text
	case len(t.prompt)+len(t.sampled)+1 > t.s.script.ContextLen:
		t.stop, t.full = "limit", true
	case t.req.limit() >= 0 && len(t.sampled) >= t.req.limit():
		t.stop = "limit"
	}
	return nil
}

// visible returns the text that the event may contain: none while the text may be
// the beginning of a stop string, and nothing from a stop string on.
func (t *task) visible(last int, ending bool) string {
	rest := t.text[t.sent:]
	for _, w := range t.req.Stop {
		from := max(0, len(rest)-last-len(w))
		if at := strings.Index(rest[from:], w); w != "" && at >= 0 {
			t.stop, t.word = "word", w
			t.text = t.text[:t.sent+from+at]
			rest = t.text[t.sent:]
			break
		}
	}
	if t.stop == "" && !ending {
		for _, w := range t.req.Stop {
			for n := min(len(w), len(rest)); n > 0; n-- {
				if strings.HasSuffix(rest, w[:n]) {
					return ""
				}
			}
		}
	}
	t.sent = len(t.text)
	return rest
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
