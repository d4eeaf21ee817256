// Package sdnotify reports a service's state to systemd, as sd_notify(3)
// describes: datagrams of NAME=value lines, sent to the socket that NOTIFY_SOCKET
// names. Without a service manager the functions do nothing.
package sdnotify

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Notifier sends notifications. Its methods may be called from any goroutine.
type Notifier struct {
	socket string // empty: no service manager
	log    *slog.Logger
	// watchdog is the interval within which systemd expects a Watchdog
	// notification, 0 for none.
	watchdog time.Duration
}

// FromEnv returns a notifier for the service manager that the environment names.
// A notification that cannot be sent is logged.
func FromEnv(getenv func(string) string, log *slog.Logger) *Notifier {
	n := &Notifier{socket: getenv("NOTIFY_SOCKET"), log: log}
	if name, abstract := strings.CutPrefix(n.socket, "@"); abstract {
		n.socket = "\x00" + name
	}
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n // meant for another process
	}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		n.watchdog = time.Duration(min(usec, math.MaxInt64/1000)) * time.Microsecond
	}
	return n
}

// Ready reports that the service has started.
func (n *Notifier) Ready(status string) { n.send("READY=1", statusLine(status)) }

// Stopping reports that the service is shutting down, and asks systemd to wait at
// least that long for its end, which may exceed TimeoutStopSec=.
func (n *Notifier) Stopping(status string, limit time.Duration) {
	n.send("STOPPING=1", statusLine(status), extendLine(limit))
}

// Status reports what the service is doing, for people.
func (n *Notifier) Status(status string) { n.send(statusLine(status)) }

// Progress is Status for a step that may exceed TimeoutStartSec=: systemd waits
// at least that long for the next notification.
func (n *Notifier) Progress(status string, limit time.Duration) {
	n.send(statusLine(status), extendLine(limit))
}

// Watchdog reports at half the interval of WatchdogSec= that the service is alive,
// whenever alive returns true, until stop is called.
func (n *Notifier) Watchdog(alive func() bool) (stop func()) {
	if n.socket == "" || n.watchdog == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(max(n.watchdog/2, time.Millisecond))
		defer tick.Stop()
		for {
			if alive() {
				n.send("WATCHDOG=1")
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// statusLine returns the assignment of a status. A line break in the status would begin
// another assignment.
func statusLine(status string) string {
	return "STATUS=" + strings.NewReplacer("\r", " ", "\n", " ").Replace(status)
}

func extendLine(limit time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", limit.Microseconds())
}

// send writes one datagram.
func (n *Notifier) send(lines ...string) {
	if n.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(lines, "\n")))
		_ = conn.Close()
	}
	if err != nil {
		n.log.Warn("cannot notify the service manager", "cause", err.Error())
	}
}
