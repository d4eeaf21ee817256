package supervise

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// lostDevice answers the first request as llama-server does on a Vulkan device that is lost.
func lostDevice() fakellama.Script {
	return fakellama.Script{Faults: []fakellama.Fault{{
		Kind: fakellama.KindStatus, Request: 1, Status: 500, Message: "decode() failed: vk::Queue::submit: ErrorDeviceLost",
	}}}
}

// A process goes on after its Vulkan device is lost, and answers every request with an
// error. It is replaced.
func TestLostDeviceEndsTheProcess(t *testing.T) {
	for name, line := range map[string]string{
		"the module": "1.29.530.580 E ggml_vulkan: device lost on Vulkan0",
		"the server": "1.29.530.580 E srv  update_slots: decode() failed: vk::Queue::submit: ErrorDeviceLost",
	} {
		t.Run(name, func(t *testing.T) {
			torture.Rounds(t, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "lost")
				spec := fakeSpec(t, roleServer, lostDevice())
				spec.Argv = []string{"sh", "-c", `(until rm "` + file + `" 2>/dev/null; do sleep 0.02; done; echo "` + line + `" >&2) & exec "$0" "$@"`, os.Args[0]}
				spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
				c := mustStart(t, spec)
				events, done := c.Subscribe()
				defer done()
				before := c.Pid()
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if e := waitForState(t, events, Starting); !errors.Is(e.Cause, ErrGPUHang) {
					t.Errorf("the cause is %v", e.Cause)
				}
				waitForState(t, events, Ready)
				if c.Pid() == before {
					t.Errorf("process %d, whose device is lost, serves", before)
				}
				stopClean(t, c)
			})
		})
	}
}

// A line in the log is no proof: a request may have written it.
func TestLostDeviceIsConfirmed(t *testing.T) {
	t.Parallel()
	const line = "1.29.530.580 E ggml_vulkan: device lost on Vulkan0"
	if !lostLine.MatchString(line) || lostLine.MatchString("error parsing grammar: "+line) {
		t.Error("the line is not recognised, or within another one")
	}
	for name, c := range map[string]struct {
		script fakellama.Script
		want   bool
	}{
		"lost":    {lostDevice(), true},
		"healthy": {fakellama.Script{Reply: "done"}, false},
		"another error": {fakellama.Script{Faults: []fakellama.Fault{{
			Kind: fakellama.KindStatus, Status: 500, Message: "the request is too large",
		}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := mustStart(t, fakeSpec(t, roleServer, c.script))
			child.mu.Lock()
			p := child.current
			child.mu.Unlock()
			if got := child.deviceIsLost(t.Context(), p); got != c.want {
				t.Errorf("lost: %t, want %t", got, c.want)
			}
		})
	}
}

// Lines that somebody forges cause a few checks, whatever their number, and the last one is
// not forgotten.
func TestLostDeviceIsCheckedNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		answer := func(conn net.Conn) {
			for r := bufio.NewReader(conn); ; checks.Add(1) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			}
		}
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go answer(theirs)
			return ours, nil
		}}
		events := &startupEvents{lost: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		var watcher sync.WaitGroup
		watcher.Go(func() {
			(&Child{baseURL: "http://llama"}).watchDevice(ctx, &process{probeTransport: transport}, events, nil)
		})
		for range 100 { // ten seconds
			notify(events.lost)
			time.Sleep(100 * time.Millisecond)
		}
		if n := checks.Load(); n > 6 {
			t.Errorf("%d checks in ten seconds", n)
		}
		time.Sleep(lostPause)
		synctest.Wait()
		if n := checks.Load(); n < 6 {
			t.Errorf("%d checks: the last line was forgotten", n)
		}
		cancel()
		watcher.Wait()
		transport.CloseIdleConnections()
	})
}
