package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// singleModel is a Models of one model that somebody else loads. It answers to
// every name, as llama-server with one model does.
type singleModel struct {
	mu      sync.Mutex
	status  rocm.ModelStatus
	backend Backend // nil: not loaded yet
	slots   int
	changed chan struct{} // closed at the next change
}

func newSingleModel() *singleModel {
	return &singleModel{status: rocm.ModelStatus{State: rocm.ModelLoading, Process: supervise.Starting, Fits: true}, changed: make(chan struct{})}
}

// set makes the model available.
func (s *singleModel) set(status rocm.ModelStatus, b Backend, slots int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status.State, status.Fits = rocm.ModelLoaded, true
	s.status, s.backend, s.slots = status, b, slots
	close(s.changed)
	s.changed = make(chan struct{})
}

// current returns the model's status, and the channel that the next change closes.
func (s *singleModel) current() (rocm.ModelStatus, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if s.backend != nil {
		status.Process = s.backend.State()
	}
	return status, s.changed
}

// Resolve implements Models.
func (s *singleModel) Resolve(string) (rocm.ModelStatus, error) {
	status, _ := s.current()
	return status, nil
}

// Acquire implements Models. It does not wait for the first load: clients retry
// after the answer 503. The backend's own client waits for a restart.
func (s *singleModel) Acquire(context.Context, rocm.AcquireRequest) (Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backend == nil {
		return nil, ErrLoading
	}
	return &singleLease{backend: s.backend, slots: s.slots, model: s.status.Name}, nil
}

// List implements Models.
func (s *singleModel) List() []rocm.ModelStatus {
	status, _ := s.current()
	return []rocm.ModelStatus{status}
}

// Load implements Models.
func (s *singleModel) Load(ctx context.Context, _ string) error {
	for {
		status, changed := s.current()
		if status.State == rocm.ModelLoaded {
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
func (s *singleModel) Watch(ctx context.Context) <-chan rocm.ModelStatus {
	out := make(chan rocm.ModelStatus)
	_, changed := s.current()
	go func() {
		defer close(out)
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			var status rocm.ModelStatus
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

// maxModelList is the largest accepted answer of llama-server's /v1/models.
const maxModelList = 1 << 20

// serveModel answers GET /v1/models/NAME for a single model: OpenAI's API has this
// route and llama-server has not. The answer is from llama-server's own list.
func (g *Gateway) serveModel(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := modelName(r.URL.Path)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		model, err := g.findModel(r, name)
		switch {
		case err != nil:
			g.handleProxyError(w, r, err)
		case model == nil:
			writeError(w, http.StatusNotFound, "not_found_error", fmt.Sprintf("there is no model %q; GET /v1/models lists the names", name))
		default:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = w.Write(model) //nolint:gosec // JSON of llama-server, never HTML
		}
	})
}

// findModel returns the entry of a model in the backend's list, nil if there is
// none.
func (g *Gateway) findModel(r *http.Request, name string) (json.RawMessage, error) {
	b := exchangeOf(r.Context()).lease.Backend()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, b.BaseURL()+"/v1/models", nil)
	if err != nil {
		return nil, err
	}
	res, err := b.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New("list of models: " + res.Status)
	}
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxModelList)).Decode(&list); err != nil {
		return nil, fmt.Errorf("list of models: %w", err)
	}
	for _, entry := range list.Data {
		var model struct {
			ID      string   `json:"id"`
			Aliases []string `json:"aliases"`
		}
		if err := json.Unmarshal(entry, &model); err != nil {
			return nil, fmt.Errorf("list of models: %w", err)
		}
		for _, id := range append(model.Aliases, model.ID) {
			if id == name {
				return entry, nil
			}
		}
	}
	return nil, nil
}
