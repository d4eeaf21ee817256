// Package doctor looks at a machine for what keeps models from running on its
// GPU, and says what to do about it.
//
// It exists because most failures of GPU programs are decided before any of
// them starts: a kernel that is too old, firmware that is missing, a device
// file that the user may not open, a container without the devices, a cache
// folder that may not hold programs. Each is found by reading the kernel's
// files, without a single ROCm tool and without opening a device.
//
// Files are read below a root, so that a machine can be described by a tree of
// text files. The package changes nothing and starts nothing; whether the
// bundle is whole and its server starts is package rocm's to find out.
package doctor

import (
	"os"
	"path/filepath"
	"strings"
)

// State is how grave a finding is.
type Status string

// The states. A warning costs the GPU or speed, a failure keeps models from
// running at all.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // what to do; set unless the state is ok
}

// Disk is what is known of the file system of a folder.
type Disk struct {
	Free     uint64 // bytes that this user may fill
	NoExec   bool   // programs may not be run from it
	ReadOnly bool
}

// Machine is where the facts come from.
type Machine struct {
	// Root is the folder below which files are read.
	Root string
	// Environ is the environment, as os.Environ gives it.
	Environ []string
	// KernelLog gives the kernel's messages, or why they cannot be read.
	KernelLog func() ([]byte, error)
	// Disk looks at a folder that is there.
	Disk func(dir string) (Disk, error)
	// AddressSpaceLimit is the most address space that a process may have, in bytes;
	// 0: no limit.
	AddressSpaceLimit uint64
}

// System checks what concerns the whole machine: kernel, distribution,
// container, memory and the kernel's messages about the GPU.
func (m Machine) CheckSystem() []Finding {
	out := []Finding{m.kernel(), m.distribution()}
	if f, inside := m.container(); inside {
		out = append(out, f)
	}
	return append(out, m.memory(), m.messages())
}

func (m Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Root}, elem...)...)
}

// text reads a small file, empty where there is none.
func (m Machine) text(elem ...string) string {
	raw, err := os.ReadFile(m.path(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func (m Machine) exists(elem ...string) bool {
	_, err := os.Lstat(m.path(elem...))
	return err == nil
}

func (m Machine) getenv(name string) string {
	value := ""
	for _, e := range m.Environ {
		if rest, ok := strings.CutPrefix(e, name+"="); ok {
			value = rest
		}
	}
	return value
}
