package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var errSocketInUse = errors.New("another program is listening there")

// listenUnix listens on a socket file. It replaces a socket on which nobody
// listens any more, as a killed program leaves it, and nothing else.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	unlock, locked := lockDirectory(filepath.Dir(path))
	defer unlock()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	conn, dialErr := new(net.Dialer).DialContext(ctx, "unix", path)
	if dialErr == nil {
		_ = conn.Close()
		return nil, errSocketInUse
	}
	info, statErr := os.Lstat(path)
	if !locked || !errors.Is(dialErr, unix.ECONNREFUSED) || statErr != nil || info.Mode().Type() != os.ModeSocket {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", path)
}

// lockDirectory keeps two of our processes from replacing a socket of the
// directory at the same time. locked is false where another process has the lock
// or the directory cannot be read.
func lockDirectory(dir string) (unlock func(), locked bool) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, false
	}
	// Closing the file releases the lock.
	return func() { _ = f.Close() }, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
