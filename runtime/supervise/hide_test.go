//go:build linux

package supervise

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// hideName is the environment variable with the path of a file. From when that is
// there, a server in roleHide does not tell its slots.
const hideName = "SUPERVISE_TEST_HIDE"

// hide serves until it is killed.
func hide() error {
	var script fakellama.Script
	if err := json.Unmarshal([]byte(os.Getenv(fakellama.EnvScript)), &script); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", os.Args[2])
	if err != nil {
		return err
	}
	server := fakellama.New(script)
	http.HandleFunc("/slots", func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(os.Getenv(hideName)); err == nil {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		server.ServeHTTP(w, r)
	})
	http.Handle("/", server)
	return http.Serve(l, nil)
}

// A server that stops telling its slots while it counts as stalled is not held to
// what it told before: requests are let through again.
func TestSlotsHiddenInAStall(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "hide")
		spec := fake(t, roleHide, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStall, AfterTokens: 1}}})
		spec.Env = append(spec.Env, hideName+"="+file)
		spec.StallTimeout, spec.StallGrace = 200*time.Millisecond, -1
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		res, err := complete(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		until(t, events, Stalled)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		until(t, events, Ready)
		cancel()
		_ = res.Body.Close()
	})
}

// The same for one whose grace runs: nothing ends it any more.
func TestHiddenSlotsEndGrace(t *testing.T) {
	for _, stalled := range []bool{true, false} {
		c := &Child{spec: Spec{StallGrace: time.Hour, Log: slog.New(slog.DiscardHandler)}, state: Ready, changed: make(chan struct{})}
		c.hub = newHub(c.spec.Log)
		events, done := c.Subscribe()
		s := service{since: time.Now()}
		if stalled {
			c.heed(&s, observation{stalled: true, idle: time.Second})
		}
		if (s.grace != nil) != stalled || s.stuck.IsZero() == stalled || (c.State() == Stalled) != stalled {
			t.Fatalf("stalled %v: %+v, state %s", stalled, s, c.State())
		}
		c.heed(&s, observation{err: errNoSlots})
		if s.grace != nil || !s.stuck.IsZero() || c.State() != Ready {
			t.Errorf("stalled %v: %+v, state %s, want one that is ready and has no end", stalled, s, c.State())
		}
		done()
		var states []State
		for e := range events {
			states = append(states, e.To)
		}
		if want := map[bool]int{true: 2, false: 0}[stalled]; len(states) != want {
			t.Errorf("stalled %v: %d changes, %v; want %d", stalled, len(states), states, want)
		}
	}
}
