package activity

import (
	"context"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// SampleInterval is the time between samples, and SamplesKept how many are kept: those
// of the last quarter of an hour.
const (
	SampleInterval = 5 * time.Second
	SamplesKept    = int(15 * time.Minute / SampleInterval)
)

// Card is a GPU at one moment. Sizes are in bytes.
type Card struct {
	PCI  string `json:"pci"`
	Name string `json:"name"`
	// Total is the card's memory and Used the used part of it, of which Ours belongs
	// to the service's models. Known reports whether the driver says how much is used.
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
	Ours  uint64 `json:"ours"`
	Known bool   `json:"known"`
	// Sensors has what the driver reports; what it does not report is 0 and left out.
	gpu.Sensors
}

// Others returns the used memory of other programs.
func (c *Card) Others() uint64 { return c.Used - min(c.Ours, c.Used) }

// Sample is how busy the service was at one moment.
type Sample struct {
	Time time.Time `json:"time"`
	// Running and Waiting count requests, as Log.Counts does.
	Running int `json:"running"`
	Waiting int `json:"waiting"`
	// PromptPerSecond and GeneratedPerSecond are the tokens of prompts that were
	// computed, and those that were generated, in the time since the last sample, a
	// second. Those of an answer that is no stream count when it ends.
	PromptPerSecond    float64 `json:"prompt_per_second"`
	GeneratedPerSecond float64 `json:"generated_per_second"`
	Cards              []Card  `json:"cards"`
}

// Sampler takes samples.
type Sampler struct {
	log      *Log
	cards    func() []Card
	interval time.Duration
	keep     int

	mu                sync.Mutex
	history           []Sample // the newest last
	prompt, generated int64
	changed           chan struct{} // closed at the next sample
}

// NewSampler returns a sampler that reads the cards with a function; nil: there are
// none. It takes a sample at each interval while Run runs, and keeps that many.
func NewSampler(l *Log, cards func() []Card, interval time.Duration, keep int) *Sampler {
	if cards == nil {
		cards = func() []Card { return nil }
	}
	return &Sampler{log: l, cards: cards, interval: interval, keep: max(keep, 1), changed: make(chan struct{})}
}

// Run takes a sample at once and then at each interval, until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		s.sample(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sample takes one sample.
func (s *Sampler) sample(now time.Time) {
	next := Sample{Time: now, Cards: s.cards()}
	if next.Cards == nil {
		next.Cards = []Card{}
	}
	next.Running, next.Waiting = s.log.Counts()
	prompt, generated := s.log.Tokens()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.history); n > 0 {
		if seconds := now.Sub(s.history[n-1].Time).Seconds(); seconds > 0 {
			next.PromptPerSecond = float64(prompt-s.prompt) / seconds
			next.GeneratedPerSecond = float64(generated-s.generated) / seconds
		}
	}
	s.prompt, s.generated = prompt, generated
	if len(s.history) >= s.keep {
		s.history = append(s.history[:0], s.history[len(s.history)-s.keep+1:]...)
	}
	s.history = append(s.history, next)
	close(s.changed)
	s.changed = make(chan struct{})
}

// History returns the samples that are kept, the oldest first.
func (s *Sampler) History() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Sample{}, s.history...)
}

// Latest returns the last sample, and the channel that the next one closes. ok is false
// before the first one.
func (s *Sampler) Latest() (last Sample, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.history); n > 0 {
		return s.history[n-1], s.changed, true
	}
	return Sample{}, s.changed, false
}
