//go:build linux && amd64

package rocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Settings that cannot work are errors before a process is started.
func TestInvalidSettingsAreRejected(t *testing.T) {
	b := fakebundle.New(t, fakellama.Script{})
	dir := t.TempDir()
	fifo, file, marked, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "file"), filepath.Join(dir, "marked"), filepath.Join(dir, "huge")
	err := errors.Join(
		syscall.Mkfifo(fifo, 0o600), os.WriteFile(file, []byte("x"), 0o600), os.WriteFile(marked, []byte("\ufeff{{ x }}"), 0o600),
		os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 100<<30),
	)
	if err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*rocm.Settings){
		"one of them":         func(s *rocm.Settings) { s.Embeddings, s.Reranking = true, true },
		"start timeout":       func(s *rocm.Settings) { s.Timeouts.Start = -time.Second },
		"stop timeout":        func(s *rocm.Settings) { s.Timeouts.Stop = -1 },
		"Restart.Disabled":    func(s *rocm.Settings) { s.Restart.MaxFailures = -1 },
		"longest backoff":     func(s *rocm.Settings) { s.Restart.MinBackoff, s.Restart.MaxBackoff = time.Second, time.Millisecond },
		"pooling \"average\"": func(s *rocm.Settings) { s.Pooling = "average" },
		"host:port":           func(s *rocm.Settings) { s.TCP = "127.0.0.1:99999" },
		"template file":       func(s *rocm.Settings) { s.ChatTemplateFile = filepath.Join(dir, "absent.jinja") },
		"byte order mark":     func(s *rocm.Settings) { s.ChatTemplateFile = marked },
		"file is too large":   func(s *rocm.Settings) { s.ChatTemplateFile = huge },
		"not a regular file":  func(s *rocm.Settings) { s.ChatTemplateFile = fifo },
		"create it":           func(s *rocm.Settings) { s.SlotDir = filepath.Join(dir, "absent") },
		"not a directory":     func(s *rocm.Settings) { s.SlotDir = file },
		"context of -1":       func(s *rocm.Settings) { s.Context = -1 },
		"cache type":          func(s *rocm.Settings) { s.Cache.KeyType = "q9" },
	} {
		s := rocm.Settings{Bundle: b.Dir}
		change(&s)
		_, loadErr := new(rocm.Backend).Load(t.Context(), b.Model, s)
		_, planErr := rocm.Plan(b.Model, s)
		for _, err := range []error{s.Validate(), loadErr, planErr} {
			if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v; want an ErrInvalidOption that says %q", err, says)
			}
		}
	}
	if err := new(rocm.Settings).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

// Progress reports loading only, and ends when the model is ready.
func TestProgressEndsWithLoading(t *testing.T) {
	b := fakebundle.New(t, fakellama.Script{})
	var mu sync.Mutex
	var stages []rocm.LoadStage
	var states []supervise.State
	s := rocm.Settings{Bundle: pack(t, b, "")}
	s.Progress = func(p rocm.LoadProgress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Done < 0 || p.Done > 1 {
			t.Errorf("%+v", p)
		}
		if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
			stages = append(stages, p.Stage)
		}
	}
	s.OnEvent = func(e supervise.Event) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, e.To)
	}
	m, err := new(rocm.Backend).Load(t.Context(), b.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []rocm.LoadStage{rocm.StageUnpack, rocm.StageStart, rocm.StageLoad}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}
	if !slices.Contains(states, supervise.Ready) || !slices.Contains(states, supervise.Stopped) {
		t.Errorf("events %v, want the whole life", states)
	}
}

// A model that the contract loaded survives a crash of its process.
func TestCrashDoesNotEndTheModel(t *testing.T) {
	m := load(t, fakellama.Script{Reply: "yes"})
	for range 2 {
		kill(t, m)
		if got := text(collect(m.Generate(t.Context(), "x"))); got != "yes" || m.Err() != nil {
			t.Errorf("after a crash: %q, %v", got, m.Err())
		}
	}
}

// With a restart policy the next request finds a new process.
func TestRestart(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		m := loadWith(t, fakellama.Script{}, rocm.Settings{Restart: rocm.Restart{MinBackoff: time.Millisecond}})
		want := text(collect(m.Generate(t.Context(), "Tell me")))
		for range 3 {
			kill(t, m)
			if got := text(collect(m.Generate(t.Context(), "Tell me"))); m.Err() != nil || got != want {
				t.Errorf("after a death: %q, %v; want %q", got, m.Err(), want)
			}
		}
	})
}

// Requests that crash the process do not end a model that is served to many.
func TestRequestFailuresAreIgnored(t *testing.T) {
	crash := fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}}}
	for _, ignored := range []bool{true, false} {
		m := loadWith(t, crash, rocm.Settings{Restart: rocm.Restart{MaxFailures: 2, MinBackoff: time.Millisecond, IgnoreRequestFailures: ignored}})
		for n := range 4 {
			collect(m.Generate(t.Context(), "x"))
			if ended := errors.Is(m.Err(), supervise.ErrCrashLoop); ended != (!ignored && n >= 2) {
				t.Errorf("ignored %v, request %d: %v", ignored, n, m.Err())
			}
		}
	}
}

func TestRestartsAreBounded(t *testing.T) {
	s := rocm.Settings{Restart: rocm.Restart{MaxFailures: 1}}
	for name, restart := range map[string]rocm.Restart{"after one failure": s.Restart, "disabled": {Disabled: true}} {
		m := loadWith(t, fakellama.Script{}, rocm.Settings{Restart: restart})
		kill(t, m)
		<-m.Server().Child.Done()
		collect(m.Generate(t.Context(), "x"))
		var exit *supervise.ExitError
		if err := m.Err(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || errors.Is(err, supervise.ErrCrashLoop) == restart.Disabled {
			t.Errorf("%s: %v; want the end by SIGKILL", name, err)
		}
	}
}
