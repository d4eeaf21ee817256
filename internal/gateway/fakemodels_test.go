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

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// fakeModels are Models whose backends answer with their name and the body.
type fakeModels struct {
	t *testing.T

	mu      sync.Mutex
	models  map[string]*fakeModel
	changes []chan rocm.ModelStatus
	leases  int
}

type fakeModel struct {
	status  rocm.ModelStatus
	backend Backend
	slots   int
	gate    chan struct{} // Acquire waits until it is closed; nil: it does not
	err     error         // of Acquire and Load
	asked   []rocm.AcquireRequest
}

// newModels returns loaded models of these names.
func newModels(t *testing.T, names ...string) *fakeModels {
	t.Helper()
	f := &fakeModels{t: t, models: map[string]*fakeModel{}}
	for _, name := range names {
		f.models[name] = &fakeModel{
			status: rocm.ModelStatus{Name: name, Path: "/models/" + name, State: rocm.ModelLoaded, Process: supervise.Ready, Fits: true},
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
func (f *fakeModels) Resolve(name string) (rocm.ModelStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.find(name)
	if err != nil {
		return rocm.ModelStatus{}, err
	}
	return m.status, nil
}

// Acquire implements Models.
func (f *fakeModels) Acquire(ctx context.Context, r rocm.AcquireRequest) (Lease, error) {
	f.mu.Lock()
	m, err := f.find(r.Name)
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	m.asked = append(m.asked, r)
	gate, err, loaded := m.gate, m.err, m.status.State == rocm.ModelLoaded
	f.mu.Unlock()
	if r.LoadedOnly && !loaded {
		return nil, ErrNotLoaded
	}
	if gate != nil {
		r.Progress(rocm.LoadProgress{Stage: rocm.StageLoad, Done: 0.42})
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
	f.t.Helper()
	poll.Until(f.t, "the release of every lease", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.leases == 0
	})
}

// List implements Models.
func (f *fakeModels) List() []rocm.ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []rocm.ModelStatus
	for _, name := range slices.Sorted(maps.Keys(f.models)) {
		list = append(list, f.models[name].status)
	}
	return list
}

// set changes the state of a model.
func (f *fakeModels) set(name string, state rocm.ModelState) error {
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
func (f *fakeModels) Load(_ context.Context, name string) error { return f.set(name, rocm.ModelLoaded) }

// Unload implements Models.
func (f *fakeModels) Unload(_ context.Context, name string) error {
	return f.set(name, rocm.ModelUnloaded)
}

// Watch implements Models. The channel has room for all changes of a test.
func (f *fakeModels) Watch(context.Context) <-chan rocm.ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan rocm.ModelStatus, 100)
	f.changes = append(f.changes, c)
	return c
}
