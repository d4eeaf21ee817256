//go:build linux

package sdnotify

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen opens a service manager's socket. An address that begins with "@" is in the
// abstract namespace. received returns the next datagram.
func listen(t *testing.T, address string) (received func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() string {
		t.Helper()
		buf := make([]byte, 1<<12)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// notifier returns a notifier for an environment, and what it logs.
func notifier(env map[string]string) (*Notifier, *bytes.Buffer) {
	var logged bytes.Buffer
	return FromEnv(func(name string) string { return env[name] }, slog.New(slog.NewTextHandler(&logged, nil))), &logged
}

func TestNotificationsOnBothKindsOfSockets(t *testing.T) {
	for kind, address := range map[string]string{
		"path": filepath.Join(t.TempDir(), "notify"), "abstract": "@go-rocm-test-" + rand.Text(),
	} {
		t.Run(kind, func(t *testing.T) {
			received := listen(t, address)
			n, logged := notifier(map[string]string{"NOTIFY_SOCKET": address})
			for want, send := range map[string]func(){
				"READY=1\nSTATUS=serving model.gguf":                         func() { n.Ready("serving model.gguf") },
				"STATUS=loading":                                             func() { n.Status("loading") },
				"STATUS=unpacking 5%\nEXTEND_TIMEOUT_USEC=90000000":          func() { n.Progress("unpacking 5%", 90*time.Second) },
				"STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=1500":      func() { n.Stopping("draining", 1500*time.Microsecond) },
				"STATUS=failed: a  b MAINPID=1 READY=1":                      func() { n.Status("failed: a\r\nb\nMAINPID=1\nREADY=1") },
				"READY=1\nSTATUS=":                                           func() { n.Ready("") },
				"STATUS=" + strings.Repeat("long ", 500):                     func() { n.Status(strings.Repeat("long ", 500)) },
				"STOPPING=1\nSTATUS=stopping at once\nEXTEND_TIMEOUT_USEC=0": func() { n.Stopping("stopping at once", 0) },
			} {
				send()
				if got := received(); got != want {
					t.Errorf("received %q, want %q", got, want)
				}
			}
			if logged.Len() > 0 {
				t.Errorf("logged %s", logged)
			}
		})
	}
}

// Without a service manager nothing is sent, logged or started.
func TestNothingHappensWithoutAServiceManager(t *testing.T) {
	n, logged := notifier(map[string]string{"WATCHDOG_USEC": "1000"})
	n.Ready("x")
	n.Status("x")
	n.Progress("x", time.Second)
	n.Stopping("x", time.Second)
	n.Watchdog(func() bool { t.Error("the watchdog runs"); return true })()
	if logged.Len() > 0 {
		t.Errorf("logged %s", logged)
	}
}

// A service manager that cannot be reached costs a warning each time, and nothing else.
func TestUnreachableSocketIsLogged(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{
		"missing": filepath.Join(dir, "absent"), "not a socket": file, "abstract": "@go-rocm-test-" + rand.Text(),
		"too long": "/" + strings.Repeat("x", 200),
	} {
		n, logged := notifier(map[string]string{"NOTIFY_SOCKET": address})
		n.Ready("x")
		n.Status("y")
		if got := strings.Count(logged.String(), "cannot notify the service manager"); got != 2 {
			t.Errorf("%s: %d warnings, want 2: %s", name, got, logged)
		}
	}
	// The socket appears later, as after a restart of the manager.
	address := filepath.Join(dir, "late")
	n, logged := notifier(map[string]string{"NOTIFY_SOCKET": address})
	n.Status("lost")
	received := listen(t, address)
	n.Status("found")
	if got := received(); got != "STATUS=found" || strings.Count(logged.String(), "cannot notify") != 1 {
		t.Errorf("received %q; logged %s", got, logged)
	}
}

func TestWatchdogInterval(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for name, c := range map[string]struct {
		usec, pid string
		want      time.Duration
	}{
		"unset":           {"", "", 0},
		"30 s":            {"30000000", own, 30 * time.Second},
		"no pid":          {"500", "", 500 * time.Microsecond},
		"another process": {"30000000", strconv.Itoa(os.Getpid() + 1), 0},
		"not a pid":       {"30000000", "x", 0},
		"zero":            {"0", own, 0},
		"negative":        {"-5", own, 0},
		"no number":       {"30s", own, 0},
		"fraction":        {"1.5", own, 0},
		"largest":         {strconv.FormatInt(math.MaxInt64, 10), own, math.MaxInt64 / 1000 * 1000},
		"infinity":        {strconv.FormatUint(math.MaxUint64, 10), own, 0},
	} {
		n, _ := notifier(map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid})
		if n.watchdog != c.want {
			t.Errorf("%s: an interval of %v, want %v", name, n.watchdog, c.want)
		}
	}
}

// The watchdog reports only while the service is alive, and stops for good.
func TestWatchdogReportsWhileAlive(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	received := listen(t, address)
	n, _ := notifier(map[string]string{"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000"})
	asked := 0
	stop := n.Watchdog(func() bool {
		asked++
		return asked%3 == 0
	})
	for range 4 {
		if got := received(); got != "WATCHDOG=1" {
			t.Errorf("received %q", got)
		}
	}
	stop()
	if asked < 12 {
		t.Errorf("4 reports after %d questions, want one for every third", asked)
	}
	before := asked
	stop() // again does nothing
	n.Status("end")
	for got := received(); got != "STATUS=end"; got = received() {
		if got != "WATCHDOG=1" {
			t.Errorf("received %q", got)
		}
	}
	if asked != before {
		t.Error("the watchdog ran after stop")
	}
}
