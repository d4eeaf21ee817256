package gateway

import (
	"context"
	"sync"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// singleModel is a Models of one model that somebody else loads. It answers to
// every name, as llama-server with one model does.
type singleModel struct {
	mu      sync.Mutex
	status  ModelStatus
	backend Backend // nil: not loaded yet
	slots   int
	changed chan struct{} // closed at the next change
}

func newSingleModel() *singleModel {
	return &singleModel{status: ModelStatus{State: ModelLoading, Process: supervise.Starting, Fits: true}, changed: make(chan struct{})}
}

// set makes the model available.
func (s *singleModel) set(status ModelStatus, b Backend, slots int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status.State, status.Fits = ModelLoaded, true
	s.status, s.backend, s.slots = status, b, slots
	close(s.changed)
	s.changed = make(chan struct{})
}

// current returns the model's status, and the channel that the next change closes.
func (s *singleModel) current() (ModelStatus, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if s.backend != nil {
		status.Process = s.backend.State()
	}
	return status, s.changed
}

// Resolve implements Models.
func (s *singleModel) Resolve(string) (ModelStatus, error) {
	status, _ := s.current()
	return status, nil
}

// Acquire implements Models. It does not wait for the first load: clients retry
// after the answer 503. The backend's own client waits for a restart.
func (s *singleModel) Acquire(context.Context, AcquireRequest) (Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backend == nil {
		return nil, ErrLoading
	}
	return &singleLease{backend: s.backend, slots: s.slots, model: s.status.Name}, nil
}

// List implements Models.
func (s *singleModel) List() []ModelStatus {
	status, _ := s.current()
	return []ModelStatus{status}
}

// Load implements Models.
func (s *singleModel) Load(ctx context.Context, _ string) error {
	for {
		status, changed := s.current()
		if status.State == ModelLoaded {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Unload implements Models: the only model stays.
func (s *singleModel) Unload(context.Context, string) error { return ErrOnlyModel }

// Watch implements Models.
func (s *singleModel) Watch(ctx context.Context) <-chan ModelStatus {
	out := make(chan ModelStatus)
	_, changed := s.current()
	go func() {
		defer close(out)
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			var status ModelStatus
			status, changed = s.current()
			select {
			case out <- status:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// singleLease is a lease on a model that is never unloaded.
type singleLease struct {
	backend Backend
	slots   int
	model   string
}

// Backend implements Lease.
func (l *singleLease) Backend() Backend { return l.backend }

// Slots implements Lease.
func (l *singleLease) Slots() int { return l.slots }

// Model implements Lease.
func (l *singleLease) Model() string { return l.model }

// Release implements Lease.
func (l *singleLease) Release() {}
