package gpu

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkAccess reports whether this process may open the two device files that a GPU
// program needs, and the reason if not. It does not open them: opening /dev/kfd
// creates kernel state, and opening a render node can wake a sleeping card.
func (f FS) checkAccess(d Device) (ok bool, why string) {
	if why := f.accessProblem("/dev/kfd", "--device /dev/kfd"); why != "" {
		return false, why
	}
	if d.RenderNode == "" {
		return false, "the kernel lists no render node for it; its display driver is not loaded"
	}
	if why := f.accessProblem(d.RenderNode, "--device "+d.RenderNode); why != "" {
		return false, why
	}
	return true, ""
}

// AccessProblem returns why this process may not open a device file such as
// /dev/kfd, and after "; " the remedy. It returns "" if the process may open the
// file. It does not open it.
func (f FS) AccessProblem(name string) (reason string) {
	return f.accessProblem(name, "--device "+name)
}

func (f FS) accessProblem(name, flag string) string {
	err := unix.Faccessat(unix.AT_FDCWD, f.path(name), unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return name + " is missing; in a container, pass " + flag
	case errors.Is(err, fs.ErrPermission):
		return "no permission for " + name + f.groupHint(name)
	default:
		return name + ": " + err.Error()
	}
}

// groupHint returns the group that owns the file and how to join it.
func (f FS) groupHint(name string) string {
	info, err := os.Stat(f.path(name))
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return "; it belongs to root alone: add a udev rule that sets its group to render"
	}
	id := strconv.FormatUint(uint64(st.Gid), 10)
	group := id
	if g, err := user.LookupGroupId(id); err == nil {
		group = g.Name
	}
	return "; join its group: usermod -aG " + group + " $USER, then log in again"
}
