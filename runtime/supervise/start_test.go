//go:build linux

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func TestStartRejectsInvalidSpec(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "data")
	if err := os.WriteFile(script, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spec Spec
		want error
	}{
		"nothing":        {Spec{}, ErrInvalidSpec},
		"missing":        {Spec{Argv: []string{filepath.Join(dir, "no-such")}}, ErrLibraryMissing},
		"not executable": {Spec{Argv: []string{script}}, ErrPermission},
		"own host":       {Spec{Argv: []string{os.Args[0]}, Args: []string{"--host", "0.0.0.0"}}, ErrInvalidSpec},
		"own key":        {Spec{Argv: []string{os.Args[0]}, Args: []string{"--api-key=x"}}, ErrInvalidSpec},
		"underscores":    {Spec{Argv: []string{os.Args[0]}, Args: []string{"--api_key", "x"}}, ErrInvalidSpec},
		"own prefix":     {Spec{Argv: []string{os.Args[0]}, Args: []string{"--api-prefix", "/x"}}, ErrInvalidSpec},
		"own TLS key":    {Spec{Argv: []string{os.Args[0]}, Args: []string{"--ssl-key-file", "x"}}, ErrInvalidSpec},
		"own TLS cert":   {Spec{Argv: []string{os.Args[0]}, Args: []string{"--ssl-cert-file", "x"}}, ErrInvalidSpec},
		"prefix in env":  {Spec{Argv: []string{os.Args[0]}, Env: []string{"LLAMA_ARG_API_PREFIX=/x"}}, ErrInvalidSpec},
		"bad env":        {Spec{Argv: []string{os.Args[0]}, Env: []string{"x"}}, ErrInvalidSpec},
		"bad tcp":        {Spec{Argv: []string{os.Args[0]}, TCPAddr: "localhost"}, ErrInvalidSpec},
	} {
		t.Run(name, func(t *testing.T) {
			tt.spec.SocketDir = filepath.Join(t.TempDir(), "run")
			if _, err := Start(t.Context(), tt.spec); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Fault 18: the child exits before it is ready.
func TestFault18_ExitBeforeReady(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		for _, after := range []bool{false, true} {
			spec := fakeSpec(t, roleServer, fakellama.Script{Health: fakellama.HealthLoading, Process: fakellama.Process{
				ExitEarly: !after, ExitAfterLoad: after, ExitCode: 1,
				Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'",
			}})
			_, err := Start(t.Context(), spec)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Code != 1 || !errors.Is(err, ErrModelInvalid) {
				t.Fatalf("got %v, want an ExitError of status 1 for an invalid model", err)
			}
			if !strings.Contains(err.Error(), "invalid magic") || exit.Remedy == "" {
				t.Errorf("the error must contain the log and a remedy: %v", err)
			}
			if entries, err := os.ReadDir(spec.SocketDir); err != nil || len(entries) != 0 {
				t.Errorf("left in the socket directory: %v, %v", entries, err)
			}
		}
	})
}

// Fault 18: a failure against which a restart cannot help is not restarted, whatever
// the policy.
func TestFault18_PermanentFailureIsNotRestarted(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{
			ExitEarly: true, ExitCode: 1,
			Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'",
		}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3}
		var last Event
		spec.OnEvent = func(e Event) { last = e }
		_, err := Start(t.Context(), spec)
		if !errors.Is(err, ErrModelInvalid) || errors.Is(err, ErrCrashLoop) {
			t.Errorf("got %v, want an invalid model and no crash loop", err)
		}
		if last.To != Failed || last.Attempt != 1 {
			t.Errorf("final state %s after %d attempts, want failed after one", last.To, last.Attempt)
		}
	})
}

// Fault 19: the child hangs while loading; also with the start cancelled.
func TestFault19_HangWhileLoading(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{LoadForever: true})
		spec.StartTimeout = 2 * time.Second // long enough to reach Loading
		_, err := Start(t.Context(), spec)
		var stuck *HangError
		if !errors.As(err, &stuck) || !errors.Is(err, ErrStartTimeout) || stuck.State != Loading {
			t.Fatalf("got %v, want a start that timed out while loading", err)
		}
		spec = fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{NeverListens: true}})
		spec.StartTimeout = 300 * time.Millisecond
		if _, err := Start(t.Context(), spec); !errors.As(err, &stuck) || stuck.State != Starting {
			t.Fatalf("got %v, want a start that timed out while starting", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		spec = fakeSpec(t, roleServer, fakellama.Script{LoadForever: true})
		because := errors.New("the user went home")
		spec.OnEvent = func(e Event) {
			if e.To == Loading {
				cancel(because)
			}
		}
		if _, err := Start(ctx, spec); !errors.Is(err, because) {
			t.Fatalf("got %v, want the cause of the cancellation", err)
		}
	})
}

func TestEventsReportEachState(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []State
		spec := fakeSpec(t, roleServer, fakellama.Script{LoadTime: time.Second})
		spec.OnEvent = func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 || seen[len(seen)-1] != e.To {
				seen = append(seen, e.To)
			}
		}
		c := mustStart(t, spec)
		stopClean(t, c)
		mu.Lock()
		defer mu.Unlock()
		if want := []State{Starting, Loading, Ready, Stopping, Stopped}; !slices.Equal(seen, want) {
			t.Errorf("states %v, want %v", seen, want)
		}
		if _, err := readAll(t.Context(), c); !errors.Is(err, ErrStopped) {
			t.Errorf("a request after the end: %v, want ErrStopped", err)
		}
	})
}

// However a child, its spec or its diagnosis is printed, neither the API key nor the
// environment appears.
func TestPrintingShowsNoSecret(t *testing.T) {
	spec := fakeSpec(t, roleServer, fakellama.Script{})
	spec.Env = append(spec.Env, "TOKEN=s3cret")
	c := mustStart(t, spec)
	for _, v := range []any{c, struct{ Child *Child }{c}, spec, &spec, struct{ Spec Spec }{spec}, c.Diagnose()} {
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("child", "value", v)
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("child", "value", v)
		for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s", v, v, v, v), logged.String()} {
			if _, diagnosis := v.(Diagnosis); strings.Contains(text, c.APIKey()) || !diagnosis && strings.Contains(text, "s3cret") {
				t.Errorf("%T is printed as %s", v, text)
			}
		}
	}
}

// Of the environment the child inherits the variables of the allow-list, and ggml is
// told to print no backtrace.
func TestChildInheritsTheAllowListAlone(t *testing.T) {
	t.Setenv("GOROCM_API_KEY", "s3cret")
	t.Setenv("ANY_PASSPHRASE", "s3cret")
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Pid()), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "s3cret") {
		t.Errorf("the child's environment: %q", strings.ReplaceAll(string(raw), "\x00", " "))
	}
	for _, want := range []string{"PATH=", noBacktrace} {
		if !strings.Contains("\x00"+string(raw), "\x00"+want) {
			t.Errorf("the child's environment lacks %s", want)
		}
	}
}

func TestKeyIsHidden(t *testing.T) {
	t.Setenv("LLAMA_ARG_PORT", "1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.Pid()), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), c.APIKey()) {
		t.Error("the key is on the command line")
	}
	d := c.Diagnose()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), c.APIKey()) {
		t.Error("the key is in the diagnosis")
	}
	if got := fmt.Sprint(d.RemovedEnv); !strings.Contains(got, "LLAMA_ARG_PORT") || !strings.Contains(got, "http_proxy") {
		t.Errorf("removed %s", got)
	}
	if d.State != Ready || d.Pid != c.Pid() || len(d.Argv) < 3 || d.Addr != c.Addr() {
		t.Errorf("diagnosis %+v", d)
	}
}
