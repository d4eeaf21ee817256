package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// scene is a state for a decision at the time noon.
type scene struct{ *State }

var noon = time.Unix(1e9, 0)

// newScene makes a state with cards of 1000 MiB and a host of 4000.
func newScene(cards ...string) scene {
	s := scene{NewState(Limits{MinResidency: 10 * time.Second, Patience: time.Minute, MinBackoff: time.Second, MaxBackoff: time.Minute})}
	s.Places = []Place{{ID: Host, Total: 4000 * mib, Free: 4000 * mib, Mapped: true}}
	for _, card := range cards {
		s.Places = append(s.Places, Place{ID: card, Total: 1000 * mib, Free: 1000 * mib})
	}
	return s
}

// unloaded adds a model that needs mib MiB on any card.
func (s scene) unloaded(name string, size uint64) *Model {
	m := &Model{Leases: map[uint64]bool{}}
	for _, p := range s.Places[1:] {
		m.Placements = append(m.Placements, Placement{{p.ID, size * mib}})
	}
	s.Models[name], s.Names[name] = m, name
	return m
}

// ready adds a model that holds size MiB on a card, and has been idle for a time.
func (s scene) ready(name, card string, size uint64, idle time.Duration) *Model {
	m := s.unloaded(name, size)
	m.Phase, m.Held, m.Since, m.LastUse = Ready, Placement{{card, size * mib}}, noon.Add(-time.Hour), noon.Add(-idle)
	m.LoadTime = time.Second
	for i := range s.Places {
		if s.Places[i].ID == card {
			s.Places[i].Free -= size * mib
		}
	}
	return m
}

// wants adds a request that has waited for a time.
func (s scene) wants(name string, priority int, waited time.Duration) {
	s.clientWants("", name, priority, waited)
}

func (s scene) clientWants(client, name string, priority int, waited time.Duration) {
	s.Queue = append(s.Queue, &Request{ID: uint64(len(s.Queue) + 1), Name: name, Client: client, Priority: priority, Arrived: noon.Add(-waited)})
}

// decided returns the actions in a few words.
func (s scene) decided() string {
	var out []string
	for _, a := range Decide(s.State, noon) {
		text := a.Kind.String() + " " + a.Model
		switch a.Kind {
		case Load:
			text += " on " + a.Placement[0].Place
		case Grant, Reject:
			text += fmt.Sprint(" #", a.Request)
		default:
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestDecide(t *testing.T) {
	for name, tc := range map[string]struct {
		scene func() scene
		want  string
	}{
		"the highest priority first": {func() scene {
			s := newScene("card")
			s.unloaded("a", 600)
			s.unloaded("b", 600)
			s.wants("a", 0, 3*time.Second)
			s.wants("b", 1, time.Second)
			return s
		}, "load b on card"},
		"a request that has waited for long before a higher priority": {func() scene {
			s := newScene("card")
			s.unloaded("a", 600)
			s.unloaded("b", 600)
			s.wants("a", 0, 2*time.Minute)
			s.wants("b", 1, time.Second)
			return s
		}, "load a on card"},
		"a pinned model without a request": {func() scene {
			s := newScene("card")
			s.unloaded("a", 600)
			s.unloaded("pinned", 600).Pinned = true
			s.wants("a", 1, time.Second)
			return s
		}, "load pinned on card, reject a #1"},
		"leases in order of priority": {func() scene {
			s := newScene("card")
			s.ready("a", "card", 100, 0)
			s.wants("a", 0, 3*time.Second)
			s.wants("a", 1, 2*time.Second)
			s.wants("a", 1, time.Second)
			return s
		}, "grant a #2, grant a #3, grant a #1"},
		"leases in turns between clients": {func() scene {
			s := newScene("card")
			s.ready("a", "card", 100, 0)
			for range 3 {
				s.clientWants("many", "a", 0, 3*time.Second)
			}
			s.clientWants("few", "a", 0, time.Second)
			s.clientWants("few", "a", 1, time.Second)
			return s
		}, "grant a #5, grant a #1, grant a #4, grant a #2, grant a #3"},
		"a rejected request takes no turn of its client": {func() scene {
			s := newScene("card")
			s.ready("a", "card", 100, 0)
			s.clientWants("few", "a", 0, 3*time.Second)
			s.Queue[0].Deadline = noon.Add(-time.Second)
			s.clientWants("many", "a", 0, 2*time.Second)
			s.clientWants("many", "a", 0, 2*time.Second)
			s.clientWants("few", "a", 0, time.Second)
			return s
		}, "reject a #1, grant a #2, grant a #4, grant a #3"},
		"a client that wants one model does not wait for all models of another": {func() scene {
			s := newScene("card0", "card1")
			for i, name := range []string{"a", "b", "c"} {
				s.unloaded(name, 600)
				s.clientWants("many", name, 0, time.Duration(9-i)*time.Second)
			}
			s.unloaded("d", 600)
			s.clientWants("few", "d", 0, time.Second)
			return s
		}, "load a on card0, load d on card1"},
		"where the least memory remains": {func() scene {
			s := newScene("card0", "card1")
			s.ready("other", "card1", 300, 0)
			s.unloaded("a", 600)
			s.wants("a", 0, 0)
			return s
		}, "load a on card1"},
		"two cards load side by side, one card one by one": {func() scene {
			s := newScene("card0", "card1")
			for _, model := range []string{"a", "b", "c"} {
				s.unloaded(model, 300)
				s.wants(model, 0, 0)
			}
			return s
		}, "load a on card0, load b on card1"},
		"the model that was idle for longest goes": {func() scene {
			s := newScene("card")
			s.ready("old", "card", 400, time.Hour)
			s.ready("new", "card", 400, time.Minute)
			s.unloaded("a", 500)
			s.wants("a", 0, 0)
			return s
		}, "unload old"},
		"a model that loads fast is evicted rather than one that was idle a little longer": {func() scene {
			s := newScene("card")
			s.ready("slow", "card", 400, 2*time.Minute).LoadTime = time.Minute
			s.ready("fast", "card", 400, time.Minute)
			s.unloaded("a", 500)
			s.wants("a", 0, 0)
			return s
		}, "unload fast"},
		"a small model that turns out not to be in the way stays": {func() scene {
			s := newScene("card")
			s.ready("small", "card", 100, time.Hour)
			s.ready("large", "card", 800, time.Minute)
			s.unloaded("a", 700)
			s.wants("a", 0, 0)
			return s
		}, "unload large"},
		"on the host what models hold counts although the kernel calls it free": {func() scene {
			s := newScene()
			s.ready("b", Host, 0, time.Hour).Held = Placement{{Host, 3000 * mib}}
			s.unloaded("a", 0).Placements = []Placement{{{Host, 2000 * mib}}}
			s.wants("a", 0, 0)
			return s
		}, "unload b"},
		"a model over both cards needs room on both": {func() scene {
			s := newScene("card0", "card1")
			s.ready("b", "card1", 600, time.Hour)
			s.unloaded("a", 0).Placements = []Placement{{{"card0", 500 * mib}, {"card1", 500 * mib}}}
			s.wants("a", 0, 0)
			return s
		}, "unload b"},
		"busy models drain for a request that has waited for long": {func() scene {
			s := newScene("card")
			s.ready("b", "card", 600, 0).Leases[9] = true
			s.unloaded("a", 600)
			s.wants("a", 0, 2*time.Minute)
			return s
		}, "drain b"},
		"a model that drains gets no lease": {func() scene {
			s := newScene("card")
			b := s.ready("b", "card", 600, 0)
			b.Leases[9], b.YieldTo = true, "a"
			s.unloaded("a", 600)
			s.wants("a", 0, 2*time.Minute)
			s.wants("b", 5, 0)
			return s
		}, ""},
		"a model that is not planned yet waits, one that cannot be planned does not": {func() scene {
			s := newScene("card")
			s.unloaded("new", 600).Placements = nil
			bad := s.unloaded("bad", 600)
			bad.Placements, bad.Refusal = nil, errors.New("bad")
			s.wants("new", 0, time.Hour)
			s.wants("bad", 0, 0)
			return s
		}, "reject bad #2"},
		"other programs hold the memory": {func() scene {
			s := newScene("card")
			s.Places[1].Free = 100 * mib
			s.unloaded("a", 600)
			s.wants("a", 0, 0)
			return s
		}, "reject a #1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.scene()
			if got := s.decided(); got != tc.want {
				t.Errorf("%s; want %s", got, tc.want)
			}
			if again := s.decided(); again != tc.want {
				t.Errorf("the second time %s", again)
			}
		})
	}
}

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	l := Limits{MinBackoff: 2 * time.Second, MaxBackoff: 15 * time.Second}
	var waits []time.Duration
	for failures := range 5 {
		waits = append(waits, l.backoff(failures)/time.Second)
	}
	if want := []time.Duration{2, 4, 8, 15, 15}; !slices.Equal(waits, want) {
		t.Errorf("%v, want %v", waits, want)
	}
}

// TestAClientWithManyRequestsKeepsNobodyOut fills a queue with the requests of one
// client.
func TestAClientWithManyRequestsKeepsNobodyOut(t *testing.T) {
	s := newScene("card")
	s.Limits.Queue = 4
	s.unloaded("a", 600).Phase = Loading
	arrive := func(id uint64, client string, priority int) error {
		return s.Arrive(&Request{ID: id, Name: "a", Client: client, Priority: priority, Arrived: noon})
	}
	for id := range uint64(4) {
		if err := arrive(id, "many", int(id%2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := arrive(4, "many", 0); !errors.Is(err, ErrQueueFull) {
		t.Errorf("its fifth request: %v", err)
	}
	for id := uint64(5); id < 7; id++ {
		if err := arrive(id, "few", 0); err != nil {
			t.Errorf("another client's request %d: %v", id, err)
		}
	}
	if err := arrive(7, "few", 0); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a third request, where both have two: %v", err)
	}
	if got, want := s.decided(), "reject a #0, reject a #2"; got != want { // the newest of the lowest priority first
		t.Errorf("%s; want %s", got, want)
	}
}
