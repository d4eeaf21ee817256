package supervise

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dialTCP connects to a port on which process pid listens; port 0 means the one
// that it chose itself.
func dialTCP(ctx context.Context, host string, port, pid int) (net.Conn, error) {
	ports, err := listeningPorts(pid)
	if err != nil {
		return nil, err
	}
	found := 0
	for _, p := range ports {
		if p == port || port == 0 {
			found = p
			break
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("process %d does not listen on port %d: %w", pid, port, errNotListening)
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(found)))
}

// listeningPorts gives the TCP ports on which a process listens, by matching
// the sockets among its open files with the kernel's table.
func listeningPorts(pid int) ([]int, error) {
	base := filepath.Join("/proc", strconv.Itoa(pid))
	inodes, err := socketInodes(filepath.Join(base, "fd"))
	if err != nil {
		return nil, err
	}
	var ports []int
	for _, table := range []string{"tcp", "tcp6"} {
		raw, err := os.ReadFile(filepath.Join(base, "net", table))
		if err != nil {
			continue // no IPv6
		}
		for inode, port := range parseListening(string(raw)) {
			if inodes[inode] {
				ports = append(ports, port)
			}
		}
	}
	return ports, nil
}

func socketInodes(fdDir string) (map[string]bool, error) {
	entries, err := os.ReadDir(fdDir)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(fdDir, e.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			out[strings.TrimSuffix(inode, "]")] = true
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
