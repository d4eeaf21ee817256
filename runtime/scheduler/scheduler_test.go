package scheduler

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// machine is an Effects with one card, on which loading takes a second and
// unloading half of one.
type machine struct {
	mu     sync.Mutex
	free   uint64
	log    []string
	phases map[string]Phase
	fails  map[string]error // of the next load
}

func newMachine() *machine {
	return &machine{free: 1000 * mib, phases: map[string]Phase{}, fails: map[string]error{}}
}

func (m *machine) Memory() []Place {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []Place{{ID: "card", Total: 1000 * mib, Free: m.free}}
}

func (m *machine) Load(ctx context.Context, key string, p Placement) (Placement, error) {
	m.note("load " + key)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails[key]; err != nil {
		delete(m.fails, key)
		return nil, err
	}
	m.free -= p.on("card")
	return p, nil
}

func (m *machine) Unload(key string) {
	m.note("unload " + key)
	time.Sleep(time.Second / 2)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += 600 * mib
}

func (m *machine) Changed(key string, model Model) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phases[key] = model.Phase
}

func (m *machine) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, what)
}

func (m *machine) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.log) != len(want) {
		t.Fatalf("%q, want %q", m.log, want)
	}
	for i := range want {
		if m.log[i] != want[i] {
			t.Fatalf("%q, want %q", m.log, want)
		}
	}
}

// with runs a test on two models, a and b, of 600 MiB on a card of 1000 MiB; b has
// the name "bee", too.
func with(t *testing.T, test func(t *testing.T, s *Scheduler, m *machine)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		s := New(Limits{MinResidency: 5 * time.Second, Patience: 10 * time.Second, Queue: 2, MinBackoff: time.Second, MaxBackoff: time.Minute}, m, nil)
		defer s.Close()
		s.Configure(map[string]string{"a": "a", "b": "b", "bee": "b"}, map[string]Spec{"a": {}, "b": {}})
		for _, key := range []string{"a", "b"} {
			s.Planned(key, []Placement{{{"card", 600 * mib}}}, nil)
		}
		test(t, s, m)
	})
}

func acquire(t *testing.T, s *Scheduler, name string) *Lease {
	t.Helper()
	l, err := s.Acquire(t.Context(), Request{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNamesOfOneModelShareALoad(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		var both sync.WaitGroup
		for _, name := range []string{"b", "bee"} {
			both.Go(func() {
				l := acquire(t, s, name)
				if l.Model() != "b" {
					t.Errorf("%s got %s", name, l.Model())
				}
				l.Release()
				l.Release()
			})
		}
		both.Wait()
		m.expect(t, "load b")
	})
}

func TestEvictsWhenIdleAndAfterResidency(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		a := acquire(t, s, "a")
		start := time.Now()
		time.AfterFunc(7*time.Second, a.Release)
		acquire(t, s, "b").Release()
		if waited := time.Since(start); waited != 8500*time.Millisecond {
			t.Errorf("b came after %v, want 7 s of a's lease, 500 ms of unloading and 1 s of loading", waited)
		}
		m.expect(t, "load a", "unload a", "load b")
	})
}

func TestBusyModelDrainsForAPatientRequest(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, _ *machine) {
		stop := make(chan struct{})
		var users sync.WaitGroup
		for range 2 { // whose leases overlap, so that a is never idle
			users.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					l, err := s.Acquire(t.Context(), Request{Name: "a"})
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(3 * time.Second)
					l.Release()
				}
			})
			time.Sleep(2 * time.Second)
		}
		start := time.Now()
		b := acquire(t, s, "b")
		if waited := time.Since(start); waited < 10*time.Second || waited > 15*time.Second {
			t.Errorf("b came after %v", waited)
		}
		b.Release()
		close(stop)
		users.Wait()
	})
}

func TestFailureIsTriedAgainAfterBackoff(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		broken := errors.New("broken")
		m.fails["a"] = broken
		_, err := s.Acquire(t.Context(), Request{Name: "a"})
		var failed *FailedError
		if !errors.As(err, &failed) || !errors.Is(err, broken) || time.Until(failed.RetryAt) != time.Second {
			t.Fatalf("%v", err)
		}
		if _, err = s.Acquire(t.Context(), Request{Name: "a"}); !errors.Is(err, broken) {
			t.Fatalf("at once: %v", err)
		}
		m.expect(t, "load a")
		time.Sleep(time.Second)
		acquire(t, s, "a").Release()
		m.expect(t, "load a", "load a")
	})
}

func TestClientsThatLeave(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, _ *machine) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := s.Acquire(ctx, Request{Name: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if a := s.Models()["a"]; a.Phase != Ready || len(a.Leases) != 0 {
			t.Errorf("%v with %d leases", a.Phase, len(a.Leases))
		}
	})
}

func TestQueueIsLimited(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, _ *machine) {
		var waiting sync.WaitGroup
		for range 2 {
			waiting.Go(func() { acquire(t, s, "a").Release() })
		}
		synctest.Wait()
		if _, err := s.Acquire(t.Context(), Request{Name: "a"}); !errors.Is(err, ErrQueueFull) {
			t.Error(err)
		}
		if _, err := s.Acquire(t.Context(), Request{Name: "c"}); !errors.Is(err, ErrUnknownModel) {
			t.Error(err)
		}
		waiting.Wait()
	})
}

func TestRemovedModelStopsLoading(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		result := make(chan error)
		go func() {
			_, err := s.Acquire(t.Context(), Request{Name: "a"})
			result <- err
		}()
		synctest.Wait()
		s.Configure(map[string]string{"b": "b"}, map[string]Spec{"b": {}})
		if err := <-result; !errors.Is(err, ErrUnknownModel) {
			t.Error(err)
		}
		synctest.Wait()
		if _, ok := s.Models()["a"]; ok {
			t.Error("a is still there")
		}
		m.expect(t, "load a")
	})
}

func TestUnloadOnRequest(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		result := make(chan error)
		go func() {
			_, err := s.Acquire(t.Context(), Request{Name: "a"})
			result <- err
		}()
		synctest.Wait()
		gone, err := s.Unload("a")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, ErrUnloaded) {
			t.Errorf("while it loads: %v", err)
		}
		<-gone
		if _, err := s.Unload("a"); !errors.Is(err, ErrNotLoaded) {
			t.Errorf("a model that is not loaded: %v", err)
		}
		a := acquire(t, s, "a")
		if gone, err = s.Unload("a"); err != nil {
			t.Fatal(err)
		}
		m.expect(t, "load a", "load a")
		go func() { // is answered after the model was unloaded and loaded again
			_, err := s.Acquire(t.Context(), Request{Name: "a"})
			result <- err
		}()
		synctest.Wait()
		a.Release()
		<-gone
		if err := <-result; err != nil {
			t.Error(err)
		}
		m.expect(t, "load a", "load a", "unload a", "load a")
	})
}

func TestProcessThatEnds(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		crash := errors.New("crash")
		a := acquire(t, s, "a")
		s.Exited("a", crash)
		if _, err := s.Acquire(t.Context(), Request{Name: "a"}); !errors.Is(err, crash) && err != nil {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * time.Second)
		again := acquire(t, s, "a")
		a.Release() // of the process that is gone
		if n := len(s.Models()["a"].Leases); n != 1 {
			t.Errorf("%d leases, want 1", n)
		}
		again.Release()
		m.expect(t, "load a", "unload a", "load a")
	})
}

func TestCloseEndsEverything(t *testing.T) {
	with(t, func(t *testing.T, s *Scheduler, m *machine) {
		acquire(t, s, "a") // and keep the lease
		result := make(chan error)
		go func() {
			_, err := s.Acquire(t.Context(), Request{Name: "b"})
			result <- err
		}()
		synctest.Wait()
		go s.Close()
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		s.Close()
		m.expect(t, "load a", "unload a")
		if m.phases["a"] != Unloaded {
			t.Errorf("a is %v", m.phases["a"])
		}
		if _, err := s.Acquire(t.Context(), Request{Name: "a"}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
