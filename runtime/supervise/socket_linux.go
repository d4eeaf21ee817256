package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxSocketPath is how long the path of a unix socket may be: sun_path has
	// 108 bytes with the final zero (unix(7)).
	maxSocketPath = 107
	socketName    = "s.sock" // llama-server takes a host ending in .sock for a path
)

// defaultSocketDir is where sockets lie when the Spec does not say.
func defaultSocketDir() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && forUser(dir, os.Geteuid()) {
		return filepath.Join(dir, "go-rocm"), nil
	}
	// Where the cache was put elsewhere, the user's own folder may not be
	// writable or not exist at all.
	if dir := os.Getenv("GOROCM_CACHE"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "run"), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the socket: %w; set XDG_RUNTIME_DIR, GOROCM_CACHE or HOME, or Spec.SocketDir", err)
	}
	return filepath.Join(cache, "go-rocm", "run"), nil
}

// forUser reports whether dir is a folder for the files of this user's
// processes: the user's own, or one of root's that is open to the user, as a
// container has it. Another user's may be named because su keeps the variable;
// what root made there would keep that user out.
func forUser(dir string, euid int) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	return int(st.Uid) == euid || st.Uid == 0 && unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// privateDir makes dir, or checks that it is ours and closed to others. One that
// bears a name of ours is closed if it is not; one that somebody named may have
// other uses and is refused.
func privateDir(dir string, named bool) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("make the socket folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the socket folder: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket folder %s: %w; it must be a folder and no link", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("socket folder %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: the socket folder %s belongs to user %d; remove it or choose another", ErrPermission, dir, st.Uid)
	}
	if st.Mode&0o077 != 0 && named {
		return fmt.Errorf("%w: the socket folder %s is open to others (mode %#o); close it with chmod 700, or name a folder that is not there yet",
			ErrPermission, dir, st.Mode&0o7777)
	}
	if st.Mode&0o077 != 0 {
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return fmt.Errorf("socket folder %s is open to others: %w", dir, err)
		}
	}
	return nil
}

// socketPath chooses where the socket of the child in dir lies. A path that is
// too long, or that llama-server would take for a list, is replaced by one in a
// new private folder; cleanup removes that.
func socketPath(dir string) (path string, cleanup func(), err error) {
	path = filepath.Join(dir, socketName)
	if len(path) <= maxSocketPath && !strings.ContainsAny(path, ",\"'") && path == strings.TrimSpace(path) {
		return path, func() {}, nil
	}
	for _, base := range []string{os.TempDir(), "/tmp", "/dev/shm"} {
		if len(base)+len("/go-rocm-0123456789/")+len(socketName) > maxSocketPath {
			continue
		}
		short, err := os.MkdirTemp(base, "go-rocm-") // 0700, a new name
		if err != nil {
			continue
		}
		return filepath.Join(short, socketName), func() { removeRun(short) }, nil
	}
	return "", nil, fmt.Errorf("%s is longer than the %d bytes that a socket's path may have, and no short folder could be made", path, maxSocketPath)
}

// removeStale removes a socket that a dead process left at path. Anything that
// is not a socket of this user stays, and is an error.
func removeStale(path string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%w: %s is not a socket; remove it by hand", ErrListen, path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: the socket %s belongs to user %d", ErrPermission, path, st.Uid)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// dialUnix connects to path and gives the connection only if process pid is the
// one that listens there.
func dialUnix(ctx context.Context, path string, pid int) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	peer, err := peerPid(conn)
	if err == nil && peer != pid {
		err = fmt.Errorf("%w: process %d listens on %s, not %d", ErrWrongPeer, peer, path, pid)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// peerPid asks the kernel which process called listen on the other end.
func peerPid(conn net.Conn) (int, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("not a unix connection: %T", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("who listens: %w", credErr)
	}
	return int(cred.Pid), nil
}
