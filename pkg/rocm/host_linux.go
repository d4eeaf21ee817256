package rocm

import "golang.org/x/sys/unix"

// hostMemory is the size of the machine's memory in bytes, 0 where unknown.
func hostMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}
