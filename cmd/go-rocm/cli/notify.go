package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// notifier tells systemd how the service is (sd_notify(3)): datagrams of
// NAME=value lines to the socket that NOTIFY_SOCKET names.
type notifier struct {
	addr string
	log  *slog.Logger
}

func newNotifier(socket string, log *slog.Logger) *notifier {
	if name, abstract := strings.CutPrefix(socket, "@"); abstract {
		socket = "\x00" + name
	}
	return &notifier{addr: socket, log: log}
}

// tell sends lines; without a service manager it does nothing.
func (n *notifier) tell(lines string) {
	if n.addr == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.addr, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(lines))
		_ = conn.Close()
	}
	if err != nil {
		n.log.Warn("the service manager could not be told", "cause", err.Error())
	}
}

// loadingTime is what each sign of progress while loading gains, in
// microseconds.
const loadingTime = 60 * 1000 * 1000

// endingTime is what ending takes at most beside the requests that run: that
// llama-server ends, or is killed, and the driver takes down what it had.
const endingTime = supervise.DefaultStopTimeout + 10*time.Second

// stopping tells that it ends and asks for the time that it may take, which is
// longer than TimeoutStopSec= where drain is.
func (n *notifier) stopping(drain time.Duration) {
	n.tell(fmt.Sprintf("STOPPING=1\nSTATUS=ending\nEXTEND_TIMEOUT_USEC=%d", (max(drain, 0) + endingTime).Microseconds()))
}

// state tells a change of llama-server's state, and asks for more time while it
// loads.
func (n *notifier) state(e supervise.Event) {
	switch e.To {
	case supervise.Starting:
		n.tell("STATUS=starting llama-server")
	case supervise.Loading:
		n.tell(fmt.Sprintf("STATUS=loading the model, %.0f %%\nEXTEND_TIMEOUT_USEC=%d", 100*e.Progress, loadingTime))
	case supervise.Ready:
		n.tell("STATUS=ready")
	case supervise.Stalled:
		n.tell("STATUS=llama-server is stalled")
	case supervise.Failed:
		n.tell("STATUS=llama-server failed")
	case supervise.Stopped, supervise.Stopping:
	}
}

// watchdog tells at half the interval that systemd asks for that we are alive,
// as long as the supervision has not given up. It returns what stops it.
func (n *notifier) watchdog(usec, pid string, state func() supervise.State) func() {
	interval, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || interval <= 0 || n.addr == "" {
		return func() {}
	}
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return func() {} // meant for another process
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(max(time.Duration(interval)*time.Microsecond/2, time.Millisecond))
		defer tick.Stop()
		for {
			if !state().Final() {
				n.tell("WATCHDOG=1")
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
