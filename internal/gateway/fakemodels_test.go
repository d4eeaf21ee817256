package gateway

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// fakeModels are Models whose backends answer with their name and the body.
type fakeModels struct {
	t *testing.T

	mu      sync.Mutex
	models  map[string]*fakeModel
	changes []chan ModelStatus
	leases  int
}

type fakeModel struct {
	status  ModelStatus
	backend Backend
	slots   int
	gate    chan struct{} // Acquire waits until it is closed; nil: it does not
	err     error         // of Acquire and Load
	asked   []AcquireRequest
}

// newModels returns loaded models of these names.
func newModels(t *testing.T, names ...string) *fakeModels {
	t.Helper()
	f := &fakeModels{t: t, models: map[string]*fakeModel{}}
	for _, name := range names {
		f.models[name] = &fakeModel{
			status: ModelStatus{Name: name, Path: "/models/" + name, State: ModelLoaded, Process: supervise.Ready, Fits: true},
			backend: newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: "+name+" ")
				_, _ = io.Copy(w, r.Body)
				_, _ = io.WriteString(w, "\n\n")
			})),
		}
	}
	return f
}

// serve returns the URL of a gateway of the models.
func (f *fakeModels) serve(o Options, keys ...Key) string {
	f.t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(CredentialFiles{Named: keys}, log)
	if err != nil {
		f.t.Fatal(err)
	}
	o.Models, o.Log, o.Credentials = f, log, credentials
	g := New(o)
	f.t.Cleanup(g.Close)
	return serveGateway(f.t, g)
}

func (f *fakeModels) find(name string) (*fakeModel, error) {
	if name == "" && len(f.models) > 1 {
		return nil, ErrNoModelName
	}
	for _, m := range f.models {
		if name == "" || m.status.Name == name || slices.Contains(m.status.Aliases, name) {
			return m, nil
		}
	}
	return nil, ErrUnknownModel
}

// Resolve implements Models.
func (f *fakeModels) Resolve(name string) (ModelStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.find(name)
	if err != nil {
		return ModelStatus{}, err
	}
	return m.status, nil
}

// Acquire implements Models.
func (f *fakeModels) Acquire(ctx context.Context, r AcquireRequest) (Lease, error) {
	f.mu.Lock()
	m, err := f.find(r.Name)
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	m.asked = append(m.asked, r)
	gate, err, loaded := m.gate, m.err, m.status.State == ModelLoaded
	f.mu.Unlock()
	if r.LoadedOnly && !loaded {
		return nil, ErrNotLoaded
	}
	if gate != nil {
		r.Progress(LoadProgress{Model: m.status.Name, State: ModelLoading, Fraction: 0.42})
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases++
	return &fakeLease{singleLease: singleLease{backend: m.backend, slots: m.slots, model: m.status.Name}, models: f}, nil
}

type fakeLease struct {
	singleLease

	models *fakeModels
	once   sync.Once
}

// Release implements Lease.
func (l *fakeLease) Release() {
	l.once.Do(func() {
		l.models.mu.Lock()
		defer l.models.mu.Unlock()
		l.models.leases--
	})
}

// waitReleased waits until no request has a lease.
func (f *fakeModels) waitReleased() {
	for {
		f.mu.Lock()
		n := f.leases
		f.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// List implements Models.
func (f *fakeModels) List() []ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []ModelStatus
	for _, name := range slices.Sorted(maps.Keys(f.models)) {
		list = append(list, f.models[name].status)
	}
	return list
}

// set changes the state of a model.
func (f *fakeModels) set(name string, state ModelState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.find(name)
	if err != nil {
		return err
	}
	if m.err != nil {
		return m.err
	}
	m.status.State = state
	for _, c := range f.changes {
		c <- m.status
	}
	return nil
}

// Load implements Models.
func (f *fakeModels) Load(_ context.Context, name string) error { return f.set(name, ModelLoaded) }

// Unload implements Models.
func (f *fakeModels) Unload(_ context.Context, name string) error { return f.set(name, ModelUnloaded) }

// Watch implements Models. The channel has room for all changes of a test.
func (f *fakeModels) Watch(context.Context) <-chan ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan ModelStatus, 100)
	f.changes = append(f.changes, c)
	return c
}
