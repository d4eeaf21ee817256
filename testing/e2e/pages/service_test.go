//go:build e2e

package pages

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// service is a gateway of several models.
type service struct {
	url    string
	models *models
	log    *activity.Log
}

// options are what the tests vary.
type options struct {
	script  fakellama.Script
	files   gateway.CredentialFiles
	origins []string
	cards   func() []activity.Card
	models  []rocm.ModelStatus
}

// start serves models until the end of the test.
func start(t *testing.T, o options) *service {
	t.Helper()
	fake := fakellama.New(o.script)
	upstream := httptest.NewServer(fake)
	t.Cleanup(func() { fake.Close(); upstream.Close() })
	log := slog.New(slog.DiscardHandler)
	credentials, err := gateway.LoadCredentials(o.files, log)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{log: activity.NewLog(activity.Options{}), models: &models{backend: backend(upstream.URL), known: map[string]rocm.ModelStatus{}}}
	for _, m := range o.models {
		s.models.known[m.Name] = m
	}
	sampler := activity.NewSampler(s.log, o.cards, activity.SampleInterval, activity.SamplesKept)
	ctx, cancel := context.WithCancel(context.Background())
	var sampling sync.WaitGroup
	sampling.Go(func() { sampler.Run(ctx) })
	g := gateway.New(gateway.Options{
		Credentials: credentials, Models: s.models, Origins: o.origins, Activity: s.log, Sampler: sampler, Log: log,
	})
	srv := httptest.NewServer(g)
	t.Cleanup(func() {
		g.Shutdown() // ends the streams, for which Close waits
		srv.Close()
		g.Close()
		cancel()
		sampling.Wait()
	})
	s.url = srv.URL
	return s
}

// backend is the URL of a llama-server.
type backend string

// BaseURL implements gateway.Backend.
func (b backend) BaseURL() string { return string(b) }

// HTTPClient implements gateway.Backend.
func (b backend) HTTPClient() *http.Client { return &http.Client{Transport: http.DefaultTransport} }

// State implements gateway.Backend.
func (b backend) State() supervise.State { return supervise.Ready }

// models are gateway.Models whose loads succeed at once.
type models struct {
	backend backend

	mu       sync.Mutex
	known    map[string]rocm.ModelStatus
	watchers []chan rocm.ModelStatus
}

// Resolve implements gateway.Models.
func (m *models) Resolve(name string) (rocm.ModelStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.known[name]; ok {
		return s, nil
	}
	return rocm.ModelStatus{}, gateway.ErrUnknownModel
}

// Acquire implements gateway.Models.
func (m *models) Acquire(_ context.Context, r rocm.AcquireRequest) (gateway.Lease, error) {
	if _, err := m.Resolve(r.Name); err != nil {
		return nil, err
	}
	m.set(r.Name, func(s *rocm.ModelStatus) { s.State = rocm.ModelLoaded })
	return lease{m.backend, r.Name}, nil
}

// List implements gateway.Models.
func (m *models) List() []rocm.ModelStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []rocm.ModelStatus
	for _, name := range slices.Sorted(maps.Keys(m.known)) {
		list = append(list, m.known[name])
	}
	return list
}

// set changes a model.
func (m *models) set(name string, change func(*rocm.ModelStatus)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.known[name]
	change(&s)
	m.known[name] = s
	for _, w := range m.watchers {
		select {
		case w <- s:
		default: // its channel has room for all changes of a test
		}
	}
}

// Load implements gateway.Models.
func (m *models) Load(_ context.Context, name string) error {
	m.set(name, func(s *rocm.ModelStatus) { s.State, s.Cause = rocm.ModelLoaded, nil })
	return nil
}

// Unload implements gateway.Models.
func (m *models) Unload(_ context.Context, name string) error {
	m.set(name, func(s *rocm.ModelStatus) { s.State = rocm.ModelUnloaded })
	return nil
}

// Watch implements gateway.Models.
func (m *models) Watch(context.Context) <-chan rocm.ModelStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := make(chan rocm.ModelStatus, 1000)
	m.watchers = append(m.watchers, w)
	return w
}

// lease is on a model that is never unloaded while it is used.
type lease struct {
	backend backend
	model   string
}

// Backend implements gateway.Lease.
func (l lease) Backend() gateway.Backend { return l.backend }

// Slots implements gateway.Lease.
func (l lease) Slots() int { return 1 }

// Model implements gateway.Lease.
func (l lease) Model() string { return l.model }

// Release implements gateway.Lease.
func (l lease) Release() {}
