package supervise

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait bounds how long a new run's folder may be held by somebody who looks
// for orphans; that takes a moment.
const lockWait = 5 * time.Second

// errRunHeld says that the process that made a run's folder lives.
var errRunHeld = errors.New("the run's folder is held")

// lockRun takes the folder of a run by an flock(2), which the kernel drops when
// this process ends, however that happens. Unlike a pid it also means something
// to a process in another container, or on another machine, that shares the
// folder. Where the file system knows no flock, the file is nil.
func lockRun(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), dir), nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errRunHeld
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF):
		err = nil // no locks here: pids must do
	}
	return nil, errors.Join(err, unix.Close(fd))
}

// holdRun is lockRun for the folder's maker.
func holdRun(dir string) (*os.File, error) {
	for end := time.Now().Add(lockWait); ; time.Sleep(time.Millisecond) {
		f, err := lockRun(dir)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errRunHeld) || time.Now().After(end) {
			return nil, fmt.Errorf("lock the socket folder: %w", err)
		}
	}
}
