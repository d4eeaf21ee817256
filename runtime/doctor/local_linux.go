package doctor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Local returns the machine that the program runs on.
func Local() Machine {
	m := Machine{Root: "/", Environ: os.Environ(), KernelLog: kernelLog, Disk: statDisk}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err == nil && limit.Cur < 1<<62 {
		m.AddressSpaceLimit = limit.Cur
	}
	return m
}

// Actions of syslog(2).
const (
	readAll    = 3
	sizeBuffer = 10
)

// kernelLog reads the kernel's ring buffer.
func kernelLog() ([]byte, error) {
	n, err := unix.Klogctl(sizeBuffer, nil)
	if err != nil {
		return nil, fmt.Errorf("kernel log: %w", err)
	}
	buf := make([]byte, n)
	if n, err = unix.Klogctl(readAll, buf); err != nil {
		return nil, fmt.Errorf("kernel log: %w", err)
	}
	return buf[:n], nil
}

// statDisk returns the file system of dir and whether dir is writable.
func statDisk(dir string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Disk{}, fmt.Errorf("statfs: %w", err)
	}
	d := Disk{
		Free:     st.Bavail * uint64(st.Bsize), //nolint:gosec // a block size is positive
		NoExec:   st.Flags&unix.ST_NOEXEC != 0,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		d.ReadOnly, err = true, nil
	}
	return d, err
}
