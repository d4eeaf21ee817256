package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Effects carry out what the scheduler decides. Load and Unload run in goroutines of
// their own, at most one of them for each model.
type Effects interface {
	// Memory returns the places as they are now. It must be quick.
	Memory() []Place
	// Load starts the model and waits until it can be used. It returns what the
	// model holds. After an error the model holds nothing.
	Load(ctx context.Context, key string, p Placement) (Placement, error)
	// Unload ends the model, and waits until its memory is free.
	Unload(key string)
	// Changed is called after each change of a model's phase, and with an unloaded
	// model when one is forgotten. It must not block.
	Changed(key string, m Model)
}

// Scheduler is the goroutine that owns a State.
type Scheduler struct {
	effects Effects
	log     *slog.Logger
	events  chan func(*loop)
	close   chan struct{}
	closing sync.Once
	done    chan struct{} // closed when the goroutine has ended
	ids     atomic.Uint64
}

// loop is what the goroutine owns.
type loop struct {
	*Scheduler
	state   *State
	replies map[uint64]chan<- answer
	cancels map[string]context.CancelFunc // of the loads
	exits   map[string]error              // of models that ended before they were loaded
	phases  map[string]Phase              // as Changed knows them
	gone    map[string][]chan struct{}    // closed when the model is unloaded
	running int                           // effects
	stale   bool                          // the places must be read before the next decision
	closed  bool
}

// New starts a scheduler without models. log may be nil. The caller closes the
// scheduler.
func New(limits Limits, effects Effects, log *slog.Logger) *Scheduler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{effects: effects, log: log, events: make(chan func(*loop)), close: make(chan struct{}), done: make(chan struct{})}
	go s.run(limits)
	return s
}

func (s *Scheduler) run(limits Limits) {
	defer close(s.done)
	l := &loop{
		Scheduler: s, state: NewState(limits), replies: map[uint64]chan<- answer{}, cancels: map[string]context.CancelFunc{},
		exits: map[string]error{}, phases: map[string]Phase{}, gone: map[string][]chan struct{}{}, stale: true,
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	closing := s.close
	for !l.closed || l.running > 0 {
		l.step()
		timer.Reset(l.wait())
		select {
		case event := <-s.events:
			event(l)
		case <-timer.C:
			l.stale = true
		case <-closing:
			closing = nil
			l.shutdown()
		}
	}
	l.notify()
}

// wait returns how long the loop may sleep.
func (l *loop) wait() time.Duration {
	now := time.Now()
	if next := l.state.Next(now); !next.IsZero() && !l.closed {
		return next.Sub(now)
	}
	return time.Hour
}

// step decides and acts until there is nothing more to do.
func (l *loop) step() {
	for !l.closed {
		now := time.Now()
		if l.stale || l.state.NeedsMemory(now) {
			l.state.Places, l.stale = l.effects.Memory(), false
		}
		actions := Decide(l.state, now)
		if len(actions) == 0 {
			break
		}
		for _, a := range actions {
			l.act(a, now)
		}
	}
	l.notify()
}

func (l *loop) act(a Action, now time.Time) {
	l.state.Apply(a, now)
	switch a.Kind {
	case Grant:
		l.reply(a.Request, answer{model: a.Model})
	case Reject:
		l.reply(a.Request, answer{err: a.Err})
	case Load:
		l.log.Info("loading a model", "model", a.Model, "memory", size(a.Placement.bytes()))
		l.load(a.Model, a.Placement)
	case Unload:
		l.log.Info("unloading a model", "model", a.Model, "reason", a.Reason)
		l.unload(a.Model)
	case Drain:
		l.log.Info("a model drains for another", "model", a.Model, "for", a.For)
	case Resume, Forget:
	}
}

func (l *loop) reply(id uint64, a answer) {
	if ch := l.replies[id]; ch != nil {
		delete(l.replies, id)
		ch <- a // it has room for one
	}
}

func (l *loop) load(key string, p Placement) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancels[key] = cancel
	l.running++
	go func() {
		defer cancel()
		held, err := l.effects.Load(ctx, key, p)
		canceled := ctx.Err() != nil && errors.Is(err, context.Canceled)
		l.send(func(l *loop) { l.loaded(key, held, err, canceled) })
	}()
}

// loaded handles the end of a load.
func (l *loop) loaded(key string, held Placement, err error, canceled bool) {
	l.running--
	l.stale = true
	delete(l.cancels, key)
	exit, exited := l.exits[key]
	delete(l.exits, key)
	now := time.Now()
	switch {
	case canceled:
		l.state.LoadCanceled(key, now)
		l.reportGone(key)
	case err != nil:
		l.reportGone(key)
		l.log.Warn("a model could not be loaded", "model", key, "cause", err.Error())
		l.state.LoadFailed(key, err, now)
	default:
		l.state.Loaded(key, held, now)
		if l.closed {
			l.state.Models[key].Phase = Unloading
			l.unload(key)
		} else if exited {
			l.exited(key, exit)
		}
	}
}

func (l *loop) unload(key string) {
	l.running++
	go func() {
		l.effects.Unload(key)
		l.send(func(l *loop) {
			l.running--
			l.stale = true
			l.state.Unloaded(key, time.Now())
			l.reportGone(key)
		})
	}()
}

// reportGone tells those who wait for a model to be unloaded.
func (l *loop) reportGone(key string) {
	for _, gone := range l.gone[key] {
		close(gone)
	}
	delete(l.gone, key)
}

// shutdown rejects the waiting requests and ends all models.
func (l *loop) shutdown() {
	l.closed = true
	for id := range l.replies {
		l.reply(id, answer{err: ErrClosed})
	}
	l.state.Queue = nil
	for _, cancel := range l.cancels {
		cancel()
	}
	for _, key := range sortedKeys(l.state.Models) {
		if m := l.state.Models[key]; m.loaded() {
			m.Phase = Unloading
			l.unload(key)
		}
	}
}

// notify tells the effects which phases have changed.
func (l *loop) notify() {
	for _, key := range sortedKeys(l.state.Models) {
		m := l.state.Models[key]
		if before, known := l.phases[key]; !known || before != m.Phase {
			l.phases[key] = m.Phase
			l.effects.Changed(key, m.clone())
		}
	}
	for _, key := range sortedKeys(l.phases) {
		if l.state.Models[key] == nil {
			delete(l.phases, key)
			l.effects.Changed(key, Model{Retired: true})
		}
	}
}

// clone returns a copy that the loop does not change.
func (m *Model) clone() Model {
	c := *m
	c.Leases = maps.Clone(m.Leases)
	return c
}

// send lets the goroutine run f. It reports whether it did: a closed scheduler
// runs nothing any more.
func (s *Scheduler) send(f func(*loop)) bool {
	select {
	case s.events <- f:
		return true
	case <-s.done:
		return false
	}
}

// call is send, and waits until f has run.
func (s *Scheduler) call(f func(*loop)) {
	ran := make(chan struct{})
	if s.send(func(l *loop) { f(l); close(ran) }) {
		<-ran
	}
}

// Configure replaces names and models, as [State.Configure] does.
func (s *Scheduler) Configure(names map[string]string, specs map[string]Spec) {
	s.call(func(l *loop) {
		l.state.Configure(names, specs)
		for key, m := range l.state.Models {
			if cancel := l.cancels[key]; m.Retired && cancel != nil {
				cancel()
			}
		}
	})
}

// Planned sets the ways to place a model, as [State.Planned] does.
func (s *Scheduler) Planned(key string, placements []Placement, refusal error) {
	s.call(func(l *loop) { l.state.Planned(key, placements, refusal) })
}

// Unload asks for the model called name to be unloaded when no request uses it. The
// channel is closed when that has happened. Its error is ErrUnknownModel,
// ErrNotLoaded, ErrPinned or ErrClosed.
func (s *Scheduler) Unload(name string) (gone <-chan struct{}, err error) {
	done := make(chan struct{})
	err = ErrClosed
	s.call(func(l *loop) {
		key := l.state.Names[name]
		var cancel bool
		if cancel, err = l.state.AskUnload(key); err != nil {
			return
		}
		l.gone[key] = append(l.gone[key], done)
		if cancel && l.cancels[key] != nil {
			l.cancels[key]()
		}
	})
	return done, err
}

// Exited reports that the process of a loaded model has ended for good.
func (s *Scheduler) Exited(key string, cause error) {
	s.send(func(l *loop) { l.exited(key, cause) })
}

func (l *loop) exited(key string, cause error) {
	m := l.state.Models[key]
	switch {
	case m == nil || l.closed:
	case m.Phase == Loading:
		l.exits[key] = cause
	case m.loaded():
		l.log.Warn("a model's process ended", "model", key, "cause", cause.Error())
		l.state.Exited(key, cause, time.Now())
		l.unload(key)
	}
}

// Restarting reports that the process of a loaded model is being restarted.
func (s *Scheduler) Restarting(key string) { s.send(func(l *loop) { l.state.Restarting(key) }) }

// Restarted reports that the process of a model is ready again.
func (s *Scheduler) Restarted(key string) {
	s.send(func(l *loop) {
		l.state.Restarted(key)
		l.stale = true
	})
}

// Models returns what is known about the models, by their keys.
func (s *Scheduler) Models() map[string]Model {
	all := map[string]Model{}
	s.call(func(l *loop) {
		for key := range l.state.Models {
			all[key] = l.describe(key)
		}
	})
	return all
}

// Model returns what is known about a model, the zero value for an unknown key.
func (s *Scheduler) Model(key string) (m Model) {
	s.call(func(l *loop) { m = l.describe(key) })
	return m
}

// describe returns a copy of a model.
func (l *loop) describe(key string) Model {
	m := l.state.Models[key]
	if m == nil {
		return Model{}
	}
	c := m.clone()
	c.Waiting = l.state.waiting(key)
	return c
}

// Close rejects all waiting requests with ErrClosed, ends all models, also those in
// use, and waits for that.
func (s *Scheduler) Close() {
	s.closing.Do(func() { close(s.close) })
	<-s.done
}
