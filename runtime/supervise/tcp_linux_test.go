package supervise

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// TestDialTCPKeepsWhatItProved listens in this process: what was found once is
// used again as long as the socket is held, and not a moment longer.
func TestDialTCPKeepsWhatItProved(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // a TCP listener's address
	var known atomic.Pointer[listener]
	dial := func(pid int) error {
		conn, err := dialTCP(t.Context(), "127.0.0.1", port, pid, &known)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := dial(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	first := known.Load()
	if first == nil || first.port != port || !first.holds() {
		t.Fatalf("known: %+v", first)
	}
	if err := dial(os.Getpid()); err != nil || known.Load() != first {
		t.Errorf("the second time: %v, looked up again: %t", err, known.Load() != first)
	}
	if err := dial(1); err == nil {
		t.Error("another process is believed to listen on our port")
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if first.holds() {
		t.Error("a closed socket counts as held")
	}
	if err := dial(os.Getpid()); !errors.Is(err, errNotListening) {
		t.Errorf("after the socket was closed: %v", err)
	}
}
