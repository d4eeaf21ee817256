package fakellama

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// TestMain lets the test's own binary be the program, so that no other has to
// be built.
func TestMain(m *testing.M) {
	if os.Getenv("FAKELLAMA_TEST_RUN") != "" {
		Exit(Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program starts the program with a script on a socket.
func program(t *testing.T, script Script, args ...string) (cmd *exec.Cmd, socket string, stderr *syncbuffer.Buffer) {
	t.Helper()
	entry, err := script.Env()
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s.sock")
	cmd = exec.CommandContext(t.Context(), os.Args[0], append([]string{"--host", socket}, args...)...)
	cmd.Env = []string{"FAKELLAMA_TEST_RUN=1", entry, "LLAMA_API_KEY=secret"}
	stderr = &syncbuffer.Buffer{}
	cmd.Stderr = stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
	})
	return cmd, socket, stderr
}

func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// ask sends a GET and returns the status, 0 when there was no answer.
func ask(t *testing.T, hc *http.Client, path, key string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestProgramLife(t *testing.T) {
	cmd, socket, stderr := program(t, Script{LoadTime: 300 * time.Millisecond}, "-np", "2")
	hc := unixClient(socket)
	poll.Until(t, "listening", func() bool { return ask(t, hc, "/health", "") != 0 })
	poll.Until(t, "loading", func() bool { return ask(t, hc, "/health", "") == 200 })
	if code := ask(t, hc, "/props", ""); code != 401 {
		t.Errorf("without the key of the environment: %d", code)
	}
	if code := ask(t, hc, "/props", "secret"); code != 200 {
		t.Errorf("with the key: %d", code)
	}
	poll.Until(t, "the log", func() bool { return strings.Contains(stderr.String(), "listening on unix://"+socket) })
	if strings.Contains(stderr.String(), "secret") {
		t.Error("the key is in the log")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, stderr)
	}
}

func TestProgramEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script Script
		args   []string
		code   int
		signal syscall.Signal
		log    string
	}{
		{"early", Script{Process: Process{ExitEarly: true, ExitCode: 3, Log: "ggml_cuda_init: no device"}}, nil, 3, 0, "ggml_cuda_init: no device"},
		{"by a signal", Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGSEGV)}}, nil, -1, syscall.SIGSEGV, ""},
		{"by abort", Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGABRT)}}, nil, -1, syscall.SIGABRT, ""},
		{"after loading", Script{Process: Process{ExitAfterLoad: true, ExitCode: 1, Log: "out of memory"}}, nil, 1, 0, "out of memory"},
		{"without its model", Script{}, []string{"-m", "/nowhere/x.gguf"}, 1, 0, "failed to load model, '/nowhere/x.gguf'"},
		{"for a flag", Script{}, []string{"--nope"}, 1, 0, "error: invalid argument: --nope"},
		{"for an old flag", Script{Process: Process{OldFlags: []string{"--no-ui"}}}, []string{"--no-ui"}, 1, 0, "invalid argument: --no-ui"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd, _, stderr := program(t, tc.script, tc.args...)
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) {
				t.Fatalf("it ended with %v", err)
			}
			status, ok := exit.Sys().(syscall.WaitStatus)
			if !ok || exit.ExitCode() != tc.code || tc.signal != 0 && status.Signal() != tc.signal {
				t.Errorf("exit %d, %v; want %d, %v", exit.ExitCode(), exit, tc.code, tc.signal)
			}
			if !strings.Contains(stderr.String(), tc.log) {
				t.Errorf("log: %s", stderr)
			}
		})
	}
}

// TestProgramEndsByEachSignal checks that what Validate takes ends the program.
func TestProgramEndsByEachSignal(t *testing.T) {
	count := 0
	for sig := syscall.Signal(1); sig < 65; sig++ {
		script := Script{Process: Process{ExitEarly: true, ExitSignal: int(sig)}}
		if script.Validate() != nil {
			continue
		}
		count++
		cmd, _, _ := program(t, script)
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Fatalf("%v: it ended with %v", sig, err)
		}
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != sig {
			t.Errorf("%v: it ended with %v", sig, exit)
		}
	}
	if count < 20 {
		t.Errorf("%d signals were tried", count)
	}
}

func TestProgramCrashes(t *testing.T) {
	for name, tc := range map[string]struct {
		body  string
		count int // of events before it
	}{"in a stream": {`{"prompt":"x","stream":true}`, 2}, "without one": {`{"prompt":"x"}`, 0}} {
		t.Run(name, func(t *testing.T) {
			cmd, socket, _ := program(t, Script{NeverEnds: true, Faults: []Fault{{Kind: KindCrash, AfterTokens: 2, Signal: int(syscall.SIGSEGV)}}})
			hc := unixClient(socket)
			poll.Until(t, "loading", func() bool { return ask(t, hc, "/health", "") == 200 })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/completion", strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer secret")
			var b bytes.Buffer
			resp, err := hc.Do(req)
			if err == nil {
				_, err = b.ReadFrom(resp.Body)
				_ = resp.Body.Close()
			}
			if err == nil || len(events(b.String())) != tc.count {
				t.Errorf("%d events, %v", len(events(b.String())), err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) {
				t.Fatalf("it ended with %v", err)
			}
			if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGSEGV {
				t.Errorf("it ended with %v", exit)
			}
		})
	}
}

func TestProgramIgnoresSIGTERM(t *testing.T) {
	cmd, socket, stderr := program(t, Script{Process: Process{IgnoreSIGTERM: true}})
	hc := unixClient(socket)
	poll.Until(t, "loading", func() bool { return ask(t, hc, "/health", "") == 200 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the log of it", func() bool { return strings.Contains(stderr.String(), "SIGTERM ignored") })
	if code := ask(t, hc, "/health", ""); code != 200 {
		t.Errorf("health after SIGTERM: %d", code)
	}
}

// TestProgramIgnoresSIGTERMWhileLoading checks that a signal that is ignored does
// not shorten the time of loading, and that SIGINT ends it.
func TestProgramIgnoresSIGTERMWhileLoading(t *testing.T) {
	for name, script := range map[string]Script{
		"for an hour":          {LoadTime: time.Hour, Process: Process{IgnoreSIGTERM: true}},
		"for ever":             {LoadForever: true, Process: Process{IgnoreSIGTERM: true}},
		"for an end behind it": {LoadTime: time.Hour, Process: Process{IgnoreSIGTERM: true, ExitAfterLoad: true, ExitCode: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, socket, stderr := program(t, script)
			hc := unixClient(socket)
			poll.Until(t, "loading", func() bool { return ask(t, hc, "/health", "") == 503 })
			for n := 1; n <= 2; n++ {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				poll.Until(t, "the log of it", func() bool { return strings.Count(stderr.String(), "SIGTERM ignored") == n })
			}
			if code := ask(t, hc, "/health", ""); code != 503 {
				t.Errorf("health after SIGTERM: %d", code)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || strings.Contains(stderr.String(), "model loaded") {
				t.Errorf("after SIGINT: %v\n%s", err, stderr)
			}
		})
	}
}

func TestProgramNeverListens(t *testing.T) {
	cmd, socket, stderr := program(t, Script{Process: Process{NeverListens: true, Log: "waiting for the GPU"}})
	poll.Until(t, "the log", func() bool { return strings.Contains(stderr.String(), "waiting for the GPU") })
	if _, err := os.Stat(socket); err == nil {
		t.Error("there is a socket")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestProgramGrandchild(t *testing.T) {
	cmd, _, stderr := program(t, Script{Process: Process{Grandchild: true}})
	pattern := regexp.MustCompile(`grandchild pid (\d+)`)
	poll.Until(t, "the grandchild", func() bool { return pattern.MatchString(stderr.String()) })
	pid, err := strconv.Atoi(pattern.FindStringSubmatch(stderr.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the grandchild did not outlive its parent: %v", err)
	}
}

func TestProgramFloods(t *testing.T) {
	_, _, stderr := program(t, Script{Process: Process{FloodBytes: 1 << 20}})
	poll.Until(t, "a mebibyte of log", func() bool { return len(stderr.String()) >= 1<<20 })
}

func TestProgramResponds(t *testing.T) {
	for flag, want := range map[string]string{"--help": "--ctx-size N", "--version": "version: 0.5.0"} {
		var out, log bytes.Buffer
		if code := Main([]string{flag}, func(string) string { return "" }, &out, &log); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %d, %.200s", flag, code, out.String())
		}
	}
	for text, want := range map[string]string{
		"{": "unexpected EOF", `{"replay":"x"}`: `unknown field "replay"`, `{"faults":[{"kind":"cut","aftertokens":1,"after":2}]}`: `unknown field "after`,
		`{"process":{"exit":1}}`: `unknown field "exit"`, `{"slots":"two"}`: "slots", `{} {}`: "more than one", "null x": "more than one",
	} {
		var out, log bytes.Buffer
		env := func(name string) string { return map[string]string{EnvScript: text}[name] }
		if code := Main([]string{"--version"}, env, &out, &log); code != 2 || !strings.Contains(log.String(), "is no script") || !strings.Contains(log.String(), want) {
			t.Errorf("%s: %d, %s", text, code, log.String())
		}
	}
}
