//go:build !linux

package rocm

// hostMemory is not known on this platform.
func hostMemory() uint64 { return 0 }
