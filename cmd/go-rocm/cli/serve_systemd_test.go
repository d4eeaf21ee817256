//go:build linux && amd64

package cli

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestServeNotifiesSystemd(t *testing.T) {
	w := newWorld(t, fakellama.Script{LoadTime: 300 * time.Millisecond})
	addr := &net.UnixAddr{Name: filepath.Join(w.dir, "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	w.env = append(w.env, "NOTIFY_SOCKET="+addr.Name, "WATCHDOG_USEC=20000")
	messages := make(chan string, 1024)
	go func() {
		defer close(messages)
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			messages <- string(buf[:n])
		}
	}()
	s := w.serve(t, "--drain", "5m")
	want := []string{"STATUS=starting", "STATUS=loading", "READY=1", "WATCHDOG=1", "WATCHDOG=1"}
	limit := time.After(30 * time.Second)
	for len(want) > 0 {
		select {
		case msg := <-messages:
			if strings.HasPrefix(msg, want[0]) {
				want = want[1:]
			}
		case <-limit:
			t.Fatalf("missing messages: %q", want)
		}
	}
	s.end(t)
	_ = manager.Close()
	stopping := ""
	for msg := range messages {
		if strings.HasPrefix(msg, "STOPPING=1") {
			stopping = msg
		}
	}
	_, usec, _ := strings.Cut(stopping, "\nEXTEND_TIMEOUT_USEC=")
	limit5m := (5*time.Minute + supervise.DefaultStopTimeout).Microseconds()
	if extended, err := strconv.ParseInt(usec, 10, 64); err != nil || extended <= limit5m {
		t.Errorf("got %q, want STOPPING=1 and time for the running requests and for llama-server", stopping)
	}
}
