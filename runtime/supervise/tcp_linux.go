package supervise

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// listener is a socket on which a process listens.
type listener struct {
	pid, port int
	file      string // its link among the process's open files
	link      string // what that link reads: "socket:[INODE]"
}

// holds reports whether the process still has the socket open. As long as it
// does, nobody else can have its port.
func (l *listener) holds() bool {
	link, err := os.Readlink(l.file)
	return err == nil && link == l.link
}

// dialTCP connects to a port on which process pid listens; port 0 means the one
// that it chose itself. What was found is kept in known: the kernel's table of
// connections takes many milliseconds to read on a large machine, the one link
// by which the process still holds the socket takes microseconds.
func dialTCP(ctx context.Context, host string, port, pid int, known *atomic.Pointer[listener]) (net.Conn, error) {
	l := known.Load()
	if l == nil || l.pid != pid || !l.holds() {
		found, err := listeners(pid)
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

// listeners gives the TCP sockets on which a process listens, by matching the
// sockets among its open files with the kernel's table.
func listeners(pid int) ([]*listener, error) {
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

// socketFiles gives the links of open sockets by their inodes.
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

// parseListening reads /proc/net/tcp: inode to local port, of sockets in state
// LISTEN (0A).
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
