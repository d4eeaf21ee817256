// Package procstat reads what /proc says about a process: since when it runs, and
// whether it still does. A process id and a start time together name one process of a
// boot; the id alone may be used again.
package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stat is the part of /proc/PID/stat that identifies a process and shows whether it
// runs, see proc(5).
type Stat struct {
	// Start is when the process started, in clock ticks since boot.
	Start uint64
	// CPU is the time for which the process has computed, in clock ticks.
	CPU   uint64
	state byte   // its letter
	flags uint64 // PF_* of the kernel
}

// Read returns the Stat of a process. Its error wraps fs.ErrNotExist where there is no
// such process, or no procfs.
func Read(pid int) (Stat, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return Stat{}, err
	}
	return parse(raw)
}

func parse(stat []byte) (Stat, error) {
	i := bytes.LastIndexByte(stat, ')') // the name may contain any byte
	if i < 0 {
		return Stat{}, fmt.Errorf("no process name in %q", stat)
	}
	fields := strings.Fields(string(stat[i+1:]))
	const state, flags, user, system, start = 0, 9 - 3, 14 - 3, 15 - 3, 22 - 3 // fields 3, 9, 14, 15 and 22 of proc(5)
	if len(fields) <= start {
		return Stat{}, fmt.Errorf("only %d fields after the process name", len(fields))
	}
	s := Stat{state: fields[state][0]}
	var errs []error
	number := func(field int) uint64 {
		n, err := strconv.ParseUint(fields[field], 10, 64)
		errs = append(errs, err)
		return n
	}
	s.flags, s.CPU, s.Start = number(flags), number(user)+number(system), number(start)
	return s, errors.Join(errs...)
}

// IsZombie reports whether the process waits only to be reaped.
func (s Stat) IsZombie() bool { return s.state == 'Z' || s.state == 'X' }

// IsSleeping reports whether the process waits for something other than a processor or a
// disk.
func (s Stat) IsSleeping() bool { return s.state == 'S' }

// IsExiting reports whether the kernel is already releasing what the process owned
// (PF_EXITING in include/linux/sched.h).
func (s Stat) IsExiting() bool { return s.flags&0x4 != 0 }

// IsRunning reports whether pid is still the process that started at start, and is not
// a zombie. A start of 0 is that of no process.
func IsRunning(pid int, start uint64) bool {
	s, err := Read(pid)
	return err == nil && start != 0 && s.Start == start && !s.IsZombie()
}

// BootID returns the id of the current boot, empty if it cannot be read.
func BootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
