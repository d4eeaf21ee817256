package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

const (
	// maxSocketPath is the longest path of a unix socket: sun_path has 108 bytes
	// with the final zero (unix(7)).
	maxSocketPath = 107
	socketName    = "s.sock" // llama-server treats a host that ends in .sock as a path
)

// defaultSocketDir returns the directory for sockets if the Spec names none.
func defaultSocketDir() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && usableBy(dir, os.Geteuid()) {
		return filepath.Join(dir, "go-rocm"), nil
	}
	dir, err := userdirs.Writable()
	if err != nil {
		return "", fmt.Errorf("no directory for the socket: %w, or XDG_RUNTIME_DIR, or Spec.SocketDir", err)
	}
	return filepath.Join(dir, "run"), nil
}

// usableBy reports whether dir is a directory for the files of this user's
// processes: one that the user owns, or one of root's that the user may write to, as
// in a container. The variable may name another user's directory because su keeps
// it; what root created there would lock that user out.
func usableBy(dir string, euid int) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	return int(st.Uid) == euid || st.Uid == 0 && unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// privateDir creates dir, or checks that it belongs to this user and is closed to
// others. It closes a default directory that is open. It rejects an open one that
// the caller named, which may have other uses.
func privateDir(dir string, named bool) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("create the socket directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the socket directory: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket directory %s: %w; it must be a directory and not a link", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("socket directory %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: the socket directory %s belongs to user %d; remove it or choose another", ErrPermission, dir, st.Uid)
	}
	if st.Mode&0o077 != 0 && named {
		return fmt.Errorf("%w: the socket directory %s is open to others (mode %#o); close it with chmod 700, or name a directory that does not exist yet",
			ErrPermission, dir, st.Mode&0o7777)
	}
	if st.Mode&0o077 != 0 {
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return fmt.Errorf("socket directory %s is open to others: %w", dir, err)
		}
	}
	return nil
}

// socketPath returns the path of the socket of the child in dir. If that path is too
// long, or llama-server would parse it as a list, socketPath creates a private
// directory with a shorter name; cleanup removes it.
func socketPath(dir string) (path string, cleanup func(), err error) {
	path = filepath.Join(dir, socketName)
	isList := func(path string) bool { return strings.ContainsAny(path, ",\"'") || path != strings.TrimSpace(path) }
	if len(path) <= maxSocketPath && !isList(path) {
		return path, func() {}, nil
	}
	for _, base := range []string{os.TempDir(), "/tmp", "/dev/shm"} {
		if len(base)+len("/go-rocm-0123456789/")+len(socketName) > maxSocketPath || isList(base) {
			continue
		}
		short, err := os.MkdirTemp(base, "go-rocm-") // 0700, a new name
		if err != nil {
			continue
		}
		return filepath.Join(short, socketName), func() { removeRunDir(short) }, nil
	}
	return "", nil, fmt.Errorf("%s is longer than the %d bytes of a socket's path, and no shorter directory could be created", path, maxSocketPath)
}

// removeStale removes a socket that a dead process left at path. It returns an error
// for anything that is not a socket of this user, and leaves it.
func removeStale(path string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%w: %s is not a socket; remove it", ErrListen, path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: the socket %s belongs to user %d", ErrPermission, path, st.Uid)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// dialUnix connects to path. It fails unless process pid listens there.
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

// peerPid returns the process that called listen on the other end, as the kernel
// reports it.
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
		return 0, fmt.Errorf("read the peer of the socket: %w", credErr)
	}
	return int(cred.Pid), nil
}

// listener is a socket on which a process listens.
type listener struct {
	pid, port int
	file      string // the link in /proc/PID/fd
	link      string // its target, "socket:[INODE]"
}

// isOpen reports whether the process still has the socket open. Until it closes the
// socket, no other process can have the port.
func (l *listener) isOpen() bool {
	link, err := os.Readlink(l.file)
	return err == nil && link == l.link
}

// dialTCP connects to a port on which process pid listens; port 0 means the port
// that it chose itself. It caches the socket in known: the kernel's table of
// connections needs many milliseconds on a large machine, the link in /proc/PID/fd
// needs microseconds.
func dialTCP(ctx context.Context, host string, port, pid int, known *atomic.Pointer[listener]) (net.Conn, error) {
	l := known.Load()
	if l == nil || l.pid != pid || !l.isOpen() {
		found, err := findListeners(pid)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(found, func(l *listener) bool { return port == 0 || l.port == port })
		if i < 0 {
			return nil, fmt.Errorf("process %d does not listen on port %d: %w", pid, port, errNotListening)
		}
		l = found[i]
		known.Store(l)
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(l.port)))
}

// findListeners returns the TCP sockets on which a process listens. It matches the
// sockets among its open files with the kernel's table.
func findListeners(pid int) ([]*listener, error) {
	base := filepath.Join("/proc", strconv.Itoa(pid))
	files, err := socketFiles(filepath.Join(base, "fd"))
	if err != nil {
		return nil, err
	}
	var out []*listener
	for _, table := range []string{"tcp", "tcp6"} {
		raw, err := os.ReadFile(filepath.Join(base, "net", table))
		if err != nil {
			continue // no IPv6
		}
		for inode, port := range parseListening(string(raw)) {
			if file, ok := files[inode]; ok {
				out = append(out, &listener{pid: pid, port: port, file: file, link: "socket:[" + inode + "]"})
			}
		}
	}
	return out, nil
}

// socketFiles returns the links of open sockets by inode.
func socketFiles(fdDir string) (map[string]string, error) {
	entries, err := os.ReadDir(fdDir)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range entries {
		name := filepath.Join(fdDir, e.Name())
		target, err := os.Readlink(name)
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			out[strings.TrimSuffix(inode, "]")] = name
		}
	}
	return out, nil
}

// parseListening parses /proc/net/tcp. It returns the local ports of the sockets in
// state LISTEN (0A), by inode.
func parseListening(table string) map[string]int {
	out := map[string]int{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		const stateCol, localCol, inodeCol = 3, 1, 9
		if len(f) <= inodeCol || f[stateCol] != "0A" {
			continue
		}
		_, hexPort, ok := strings.Cut(f[localCol], ":")
		if !ok {
			continue
		}
		if port, err := strconv.ParseUint(hexPort, 16, 16); err == nil {
			out[f[inodeCol]] = int(port)
		}
	}
	return out
}
