package scheduler

import (
	"context"
	"testing"
)

// BenchmarkAcquire measures a lease on a model that is loaded already: what the
// scheduler adds to each request.
func BenchmarkAcquire(b *testing.B) {
	m := newMachine()
	s := New(Limits{}, instant{m}, nil)
	defer s.Close()
	s.Configure(map[string]string{"a": "a"}, map[string]Spec{"a": {}})
	s.Planned("a", []Placement{{{"card", 600 * mib}}}, nil)
	for b.Loop() {
		l, err := s.Acquire(context.Background(), Request{Name: "a"})
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

// instant is a machine that loads and unloads in no time.
type instant struct{ *machine }

// Load implements Effects.
func (instant) Load(_ context.Context, _ string, p Placement) (Placement, error) { return p, nil }

// Unload implements Effects.
func (instant) Unload(string) {}
