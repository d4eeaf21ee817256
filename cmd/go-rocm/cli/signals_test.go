//go:build linux && amd64

package cli

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// Closing the terminal stops the command and llama-server.
func TestClosedTerminalStopsCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		shows string
	}{
		"chat":           {[]string{"run"}, "for help"},
		"answer":         {[]string{"run", "-p", "Hello", "-v"}, "flood"},
		"serve":          {[]string{"serve", "--listen", "127.0.0.1:0"}, "serving "},
		"while it loads": {[]string{"run", "-p", "Hello", "-v"}, "to=loading"},
	} {
		t.Run(name, func(t *testing.T) {
			script := fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindFlood, Bytes: 1}, {Kind: fakellama.KindNoAnswer}}}
			script.LoadForever = name == "while it loads"
			w := newWorld(t, script)
			term := w.terminal(t, append(tt.args, w.model)...)
			term.expect(tt.shows)
			child := childOf(t, term.cmd.Process.Pid)
			if err := term.master.Close(); err != nil {
				t.Fatal(err)
			}
			_ = term.cmd.Wait() // the test checks the processes, not the status
			if err := syscall.Kill(child, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("llama-server still runs: %v", err)
			}
			w.nothingLeft(t)
		})
	}
}

// A terminal that closes may send SIGHUP more than once, and a reload may come while a
// service stops. A further one ends nothing before llama-server has stopped.
func TestFurtherSIGHUPsWaitForTheStop(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		shows string
		first syscall.Signal
	}{
		"run":     {[]string{"run", "-p", "Hello", "-v"}, "flood", syscall.SIGHUP},
		"serve":   {[]string{"serve", "--listen", "127.0.0.1:0"}, "serving ", syscall.SIGTERM},
		"several": {[]string{"serve", "--listen", "127.0.0.1:0", "--models-dir"}, "serving ", syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindFlood, Bytes: 1}, {Kind: fakellama.KindNoAnswer}}})
			path := w.model
			if name == "several" {
				path = filepath.Dir(path)
			}
			cmd := w.command(append(tt.args, path)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal: SIGHUP reloads a service
			errs := new(syncbuffer.Buffer)
			cmd.Stderr = errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "the line "+tt.shows, func() bool { return strings.Contains(errs.String(), tt.shows) })
			if err := cmd.Process.Signal(tt.first); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = cmd.Wait() // the test checks what is left, not the status
			}()
			for alive := true; alive; {
				_ = cmd.Process.Signal(syscall.SIGHUP) // until it has ended
				select {
				case <-ended:
					alive = false
				case <-time.After(time.Millisecond):
				}
			}
			w.nothingLeft(t)
			if tt.first == syscall.SIGTERM && !cmd.ProcessState.Exited() {
				t.Errorf("the service ended with %v: %s", cmd.ProcessState, errs)
			}
		})
	}
}

// If a reader such as head closes the pipe, run stops llama-server properly and prints no
// error.
func TestClosedPipeEndsRun(t *testing.T) {
	w := newWorld(t, fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond})
	cmd := w.command("run", w.model, "-p", "Hello")
	errs := new(syncbuffer.Buffer)
	cmd.Stderr = errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitPipe || strings.Contains(errs.String(), "go-rocm:") {
		t.Errorf("it ended with %v: %s", cmd.ProcessState, errs)
	}
	w.nothingLeft(t)
}

// nothingLeft checks that a server has left no files, as one that was killed would.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(w.dir, "run", "go-rocm", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// A command that a signal stops also exits by that signal, so that a loop in a shell stops,
// too.
func TestSignalEndsRun(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for name, load := range map[string]bool{"flood": false, "to=loading": true} {
			script := fakellama.Script{LoadForever: load, Faults: []fakellama.Fault{{Kind: fakellama.KindFlood, Bytes: 1}, {Kind: fakellama.KindNoAnswer}}}
			w := newWorld(t, script)
			cmd := w.command("run", w.model, "-p", "Hello", "-v")
			errs := new(syncbuffer.Buffer)
			cmd.Stderr = errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "the log line "+name, func() bool { return strings.Contains(errs.String(), name) })
			child := childOf(t, cmd.Process.Pid)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != sig {
				t.Errorf("%s at %s: it ended with %v: %s", sig, name, cmd.ProcessState, errs)
			}
			if err := syscall.Kill(child, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("%s at %s: llama-server still runs: %v", sig, name, err)
			}
		}
	}
}
