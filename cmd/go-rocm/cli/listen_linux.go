package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errAnswered means that a socket is somebody's.
var errAnswered = errors.New("another program answers there")

// listenUnix listens on a socket file. One on which nobody listens any more, as a
// program that was killed leaves it, is replaced; anything else is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	unlock, locked := lockFolder(filepath.Dir(path))
	defer unlock()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	conn, dialed := new(net.Dialer).DialContext(ctx, "unix", path)
	if dialed == nil {
		_ = conn.Close()
		return nil, errAnswered
	}
	info, statErr := os.Lstat(path)
	if !locked || !errors.Is(dialed, unix.ECONNREFUSED) || statErr != nil || info.Mode().Type() != os.ModeSocket {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", path)
}

// lockFolder keeps others from replacing a socket in the folder meanwhile. Where
// somebody else does so already, or the folder cannot be read, it is not locked.
func lockFolder(dir string) (unlock func(), locked bool) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, false
	}
	// Closing it gives the lock back.
	return func() { _ = f.Close() }, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
