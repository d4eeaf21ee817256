//go:build linux

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// A request whose process dies before it answered is sent again to the next
// one; one that had a token is not.
func TestRetriesOnlyWithoutTokens(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindNoAnswer, Request: 1}}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		type result struct {
			text string
			err  error
		}
		results := make(chan result, 1)
		go func() {
			// It is the first request of each process, which none answers.
			text, err := readAll(t.Context(), c)
			results <- result{text, err}
		}()
		waitFor(t, "the request to run", func() bool { return c.ActiveRequests() == 1 })
		events, done := c.Subscribe()
		defer done()
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, events, Ready)
		waitFor(t, "the request to be sent again", func() bool { return c.ActiveRequests() == 1 })
		stopClean(t, c)
		if r := <-results; r.err == nil {
			t.Errorf("got %d bytes from servers that never answer", len(r.text))
		}

		spec = fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, AfterTokens: 1, Signal: int(syscall.SIGSEGV)}}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c = mustStart(t, spec)
		text, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.As(err, &exit) || strings.Count(text, "data: ") != 1 {
			t.Errorf("got %d events and %v, want one event and the death", strings.Count(text, "data: "), err)
		}
	})
}

// A request at which two processes died is given to no third one: it may be what
// they died of, and then it would end the service for everybody.
func TestDeadlyRequestEndsNoService(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		deadly := fakellama.Fault{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}
		spec := fake(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{deadly}})
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond, MaxFailures: 3}
		c := mustStart(t, spec)
		events, done := c.Subscribe()
		defer done()
		_, err := readAll(t.Context(), c)
		var exit *ExitError
		if !errors.Is(err, ErrCrashedTwice) || !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV {
			t.Errorf("got %v, want the second death", err)
		}
		until(t, events, Ready)
		until(t, events, Ready)
		stopClean(t, c)
	})
}

func TestStatesAreTold(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []State
		spec := fake(t, roleServer, fakellama.Script{LoadTime: time.Second})
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

func TestNothingSecretIsSeen(t *testing.T) {
	t.Setenv("LLAMA_ARG_PORT", "1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	c := mustStart(t, fake(t, roleServer, fakellama.Script{}))
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
		t.Errorf("scrubbed %s", got)
	}
	if d.State != Ready || d.Pid != c.Pid() || len(d.Argv) < 3 || d.Addr != c.Addr() {
		t.Errorf("diagnosis %+v", d)
	}
}

func TestTCP(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fake(t, roleServer, fakellama.Script{})
		spec.TCPAddr = "127.0.0.1:0"
		c := mustStart(t, spec)
		if _, err := readAll(t.Context(), c); err != nil {
			t.Error(err)
		}
		host, port, err := net.SplitHostPort(c.Addr())
		if err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("address %s (%v)", c.Addr(), err)
		}
		// Somebody else's port: the child cannot listen and says so.
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		spec = fake(t, roleServer, fakellama.Script{})
		spec.TCPAddr = l.Addr().String()
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrListen) {
			t.Errorf("got %v, want ErrListen", err)
		}
	})
}

func TestProbeAndAdapt(t *testing.T) {
	script := fakellama.Script{Process: fakellama.Process{OldFlags: []string{"--offline", "--kv-unified"}}}
	env, err := script.Env()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	t.Setenv(roleName, roleServer)
	cache := t.TempDir()
	probe := Probe{Argv: []string{os.Args[0]}, CacheDir: cache, Dir: t.TempDir()}
	flags, err := ProbeFlags(t.Context(), probe)
	if err != nil {
		t.Fatal(err)
	}
	if flags.Has("--offline") || !flags.Has("--ctx-size") || !flags.TakesValue["--ctx-size"] {
		t.Fatalf("knows %d flags, or the wrong ones", len(flags.TakesValue))
	}
	spec := fake(t, roleServer, script)
	spec.Flags, spec.Args = flags, []string{"--ctx-size", "512", "--offline", "--kv-unified"}
	c := mustStart(t, spec)
	if d := c.Diagnose(); len(d.FlagNotes) != 2 || strings.Contains(strings.Join(d.Argv, " "), "--offline") {
		t.Errorf("adapted %q, ran %q", d.FlagNotes, d.Argv)
	}
	// The second time nothing is run: the answer is kept by the file's content.
	t.Setenv(roleName, roleParent)
	again, err := ProbeFlags(t.Context(), probe)
	if err != nil || len(again.TakesValue) != len(flags.TakesValue) {
		t.Errorf("the kept answer: %v", err)
	}
	// Without its flag dropped, the old server refuses.
	spec = fake(t, roleServer, script)
	spec.Args = []string{"--offline"}
	if _, err := Start(t.Context(), spec); !errors.Is(err, ErrBadArgument) {
		t.Errorf("got %v, want ErrBadArgument", err)
	}
}

func TestStartErrors(t *testing.T) {
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
