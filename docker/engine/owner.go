package engine

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/procstat"
)

// owner identifies the process that created a container. A later process with the
// same id, and one of another machine or namespace, has another owner.
type owner struct {
	machine string // the id of the installation, else "host:" and the host's name
	boot    string // the kernel's id of this boot
	space   string // the PID namespace
	pid     int
	start   string // the kernel's start time of the process
}

// currentOwner returns the owner for this process. Without a procfs such an owner
// never counts as exited.
func currentOwner() (owner, error) {
	o := owner{pid: os.Getpid(), start: startTime(os.Getpid()), boot: procstat.BootID()}
	// Systems without one, or with an empty one as in containers, are identified
	// by the host's name alone (see machine-id(5)).
	if o.machine = readWord("/etc/machine-id"); o.machine == "" {
		host, err := os.Hostname()
		if err != nil {
			return owner{}, fmt.Errorf("name this host: %w", err)
		}
		o.machine = "host:" + host
	}
	o.space, _ = os.Readlink("/proc/self/ns/pid") // no procfs: empty
	return o, nil
}

// readWord reads a file of one word, empty when there is none.
func readWord(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// String returns the owner in the form of a label.
func (o owner) String() string {
	return strings.Join([]string{o.machine, o.boot, o.space, strconv.Itoa(o.pid), o.start}, "/")
}

// parseOwner reads a label; ok is false for one that another version wrote.
func parseOwner(label string) (o owner, ok bool) {
	part := strings.Split(label, "/")
	if len(part) != 5 {
		return owner{}, false
	}
	pid, err := strconv.Atoi(part[3])
	return owner{machine: part[0], boot: part[1], space: part[2], pid: pid, start: part[4]}, err == nil
}

// hasExited reports whether the process of a label is known to have exited, as seen
// from me. Nothing is known about processes on another machine or in another PID
// namespace, which may share host name and engine with this one.
func (o owner) hasExited(me owner, startTime func(pid int) string) bool {
	switch {
	case o.machine != me.machine:
		return false
	case o.boot != me.boot:
		return !strings.HasPrefix(o.machine, "host:") // the same machine, booted anew
	case o.space != me.space:
		return false
	}
	return startTime(o.pid) != o.start
}

// startTime returns the start time of a process, empty when there is no such process
// or no procfs.
func startTime(pid int) string {
	s, err := procstat.Read(pid)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(s.Start, 10)
}
