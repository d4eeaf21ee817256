// Package doctor checks a machine for what prevents models from running on its GPU,
// and reports a remedy for each problem.
//
// Most failures of GPU programs have causes that exist before any of them starts: a
// kernel that is too old, missing firmware, a device file that the user may not open,
// a container without the devices, a cache directory from which programs may not run.
// The package finds each by reading the kernel's files, without a single ROCm tool
// and without opening a device.
//
// Files are read below a root, so that a tree of text files can describe a machine.
// The package changes nothing and starts nothing. Package rocm checks whether the
// bundle is complete and its server starts.
package doctor

import (
	"os"
	"path/filepath"
	"strings"
)

// Status is the severity of a finding.
type Status string

// A Warning costs the GPU or speed; a Failure prevents models from running at all.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // what to do; set unless Status is OK
}

// Disk describes the file system of a directory.
type Disk struct {
	Free     uint64 // bytes available to this user
	NoExec   bool   // programs may not run from it
	ReadOnly bool
}

// Machine is the source of the facts.
type Machine struct {
	// Root is the directory below which files are read.
	Root string
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// KernelLog returns the kernel's messages, or why they cannot be read.
	KernelLog func() ([]byte, error)
	// Disk returns the file system of an existing directory.
	Disk func(dir string) (Disk, error)
	// AddressSpaceLimit is the limit on a process's address space in bytes; 0 means no
	// limit.
	AddressSpaceLimit uint64
}

// CheckSystem checks the whole machine: kernel, distribution, container, memory and
// the kernel's messages about the GPU.
func (m Machine) CheckSystem() []Finding {
	out := []Finding{m.checkKernel(), m.checkDistribution()}
	if f, inside := m.checkContainer(); inside {
		out = append(out, f)
	}
	return append(out, m.checkMemory(), m.checkKernelLog())
}

func (m Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Root}, elem...)...)
}

// text returns the content of a small file, empty if it cannot be read.
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
