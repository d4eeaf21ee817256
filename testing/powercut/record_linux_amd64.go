package powercut

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// markPrefix is the beginning of the paths by which a program marks a point.
const markPrefix = "/go-rocm-powercut-mark/"

// Mark marks a point in the recording of the calling process.
func Mark(name string) { _, _ = os.Stat(markPrefix + name) }

// Record runs a command to its end and records what it changes below dir, which must be
// empty. It follows the system calls of all threads by ptrace(2). The error says if the
// command fails, starts another process, or changes files by a call that is not
// modelled. Standard output and error must be files, or nil.
func Record(cmd *exec.Cmd, dir string) (*Log, error) {
	runtime.LockOSThread() // a process is traced by one thread
	defer runtime.UnlockOSThread()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &recorder{
		pid: cmd.Process.Pid, calls: map[int]*call{}, inodes: map[uint64]object{}, names: map[object]map[string]object{},
		log: &Log{kinds: map[object]fs.FileMode{}, targets: map[object]string{}},
	}
	var root unix.Stat_t
	if err = unix.Stat(dir, &root); err == nil {
		r.device, r.inodes[root.Ino] = root.Dev, 0
		err = r.run()
	}
	if err != nil {
		_ = cmd.Process.Kill()
		r.reap()
		_ = cmd.Process.Release() // it was waited for
		return nil, fmt.Errorf("record %s: %w", cmd.Path, err)
	}
	_ = cmd.Process.Release() // it was waited for
	return r.log, nil
}

// inode returns the number of a file's inode; 0 if it has none.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

type recorder struct {
	pid    int
	calls  map[int]*call // by thread
	device uint64
	inodes map[uint64]object // of what is below the directory
	next   object
	log    *Log
	names  map[object]map[string]object // now
}

// call is a system call that a thread is in.
type call struct {
	regs    unix.PtraceRegs
	began   int
	offset  int64
	existed bool
	data    []byte
}

// run follows the process to its end.
func (r *recorder) run() error {
	var status unix.WaitStatus
	if _, err := unix.Wait4(r.pid, &status, unix.WALL, nil); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(r.pid, options); err != nil {
		return err
	}
	thread, signal := r.pid, 0
	for {
		if thread != 0 {
			if err := unix.PtraceSyscall(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) { // it was killed
				return err
			}
		}
		var err error
		// WNOTHREAD: not the children of this process's other threads.
		if thread, err = unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil); err != nil {
			return err
		}
		signal = 0
		switch {
		case thread == r.pid && status.Exited() && status.ExitStatus() == 0:
			return nil
		case thread == r.pid && !status.Stopped():
			return fmt.Errorf("wait status %#x", int(status))
		case !status.Stopped(): // a thread has ended
			delete(r.calls, thread)
			thread = 0
		case status.StopSignal() == unix.SIGTRAP|0x80:
			// Another thread may have ended the process after this one has stopped.
			if err := r.stop(thread); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		case status.StopSignal() == unix.SIGTRAP, status.StopSignal() == unix.SIGSTOP: // a new thread
		default:
			signal = int(status.StopSignal())
		}
	}
}

// reap waits for every thread of the killed process. The kernel reports the end of the
// process only after its tracer has waited for the other threads.
func (r *recorder) reap() {
	for {
		var status unix.WaitStatus
		thread, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if err != nil && !errors.Is(err, unix.EINTR) || thread == r.pid && !status.Stopped() {
			return
		}
	}
}

// stop handles the beginning or the end of a system call.
func (r *recorder) stop(thread int) error {
	c := r.calls[thread]
	if c == nil {
		c = &call{began: len(r.log.operations)}
		if err := unix.PtraceGetRegs(thread, &c.regs); err != nil {
			return err
		}
		r.calls[thread] = c
		return r.begin(c)
	}
	delete(r.calls, thread)
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(thread, &regs); err != nil {
		return err
	}
	if result := int64(regs.Rax); result >= 0 {
		return r.end(c, result)
	}
	return nil
}

// begin notes what cannot be found out after the call.
func (r *recorder) begin(c *call) (err error) {
	switch c.regs.Orig_rax {
	case unix.SYS_OPENAT:
		path, err := r.path(c.regs.Rdi, c.regs.Rsi)
		if err != nil {
			return err
		}
		c.existed = inode(path) != 0
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		if _, ok := r.file(c.regs.Rdi); !ok {
			return nil
		}
		if c.offset = int64(c.regs.R10); c.regs.Orig_rax == unix.SYS_WRITE {
			if c.offset, err = r.position(c.regs.Rdi); err != nil {
				return err
			}
		}
		if c.data, err = r.memory(c.regs.Rsi, int(c.regs.Rdx)); err != nil {
			return err
		}
	case unix.SYS_NEWFSTATAT:
		path, err := r.text(c.regs.Rsi)
		if name, ok := strings.CutPrefix(path, markPrefix); err == nil && ok {
			r.add(operation{kind: mark, name: name})
		}
		return err
	case unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FALLOCATE, unix.SYS_MMAP:
		fd := c.regs.Rdi
		if c.regs.Orig_rax == unix.SYS_MMAP {
			if fd = c.regs.R8; c.regs.R10&unix.MAP_SHARED == 0 || c.regs.Rdx&unix.PROT_WRITE == 0 {
				return nil
			}
		}
		if _, ok := r.file(fd); ok {
			return fmt.Errorf("system call %d on a file is not modelled", c.regs.Orig_rax)
		}
	case unix.SYS_COPY_FILE_RANGE, unix.SYS_SPLICE:
		if _, ok := r.file(c.regs.Rdx); ok {
			return fmt.Errorf("system call %d on a file is not modelled", c.regs.Orig_rax)
		}
	case unix.SYS_SENDFILE:
		if _, ok := r.file(c.regs.Rdi); ok {
			return errors.New("sendfile to a file is not modelled")
		}
	case unix.SYS_CLONE:
		if c.regs.Rdi&unix.CLONE_THREAD == 0 {
			return errors.New("another process is not followed")
		}
	case unix.SYS_FORK, unix.SYS_VFORK:
		return errors.New("another process is not followed")
	case unix.SYS_OPENAT2, unix.SYS_CREAT, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK, unix.SYS_UNLINK, unix.SYS_TRUNCATE, unix.SYS_LINKAT:
		return fmt.Errorf("system call %d is not modelled", c.regs.Orig_rax)
	}
	return nil
}

// end records a successful call.
func (r *recorder) end(c *call, result int64) error {
	a := &c.regs
	switch a.Orig_rax {
	case unix.SYS_OPENAT:
		if o, known := r.file(uint64(result)); known && a.Rdx&unix.O_TRUNC != 0 && c.existed {
			r.add(operation{kind: truncate, object: o})
		}
		if c.existed || a.Rdx&unix.O_CREAT == 0 {
			return nil
		}
		path, err := os.Readlink(r.fd(uint64(result)))
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(r.fd(uint64(result)), &st); err != nil {
			return err
		}
		r.create(path, st.Ino, 0, "")
	case unix.SYS_MKDIRAT:
		path, err := r.path(a.Rdi, a.Rsi)
		if err != nil {
			return err
		}
		r.create(path, inode(path), fs.ModeDir, "")
	case unix.SYS_SYMLINKAT:
		target, err := r.text(a.Rdi)
		if err != nil {
			return err
		}
		path, err := r.path(a.Rsi, a.Rdx)
		if err != nil {
			return err
		}
		r.create(path, inode(path), fs.ModeSymlink, target)
	case unix.SYS_UNLINKAT:
		path, err := r.path(a.Rdi, a.Rsi)
		if err != nil {
			return err
		}
		if dir, ok := r.directory(path); ok {
			r.add(operation{kind: remove, dir: dir, name: filepath.Base(path), object: r.names[dir][filepath.Base(path)]})
			delete(r.names[dir], filepath.Base(path))
		}
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return r.rename(a)
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		if o, ok := r.file(a.Rdi); ok {
			r.add(operation{kind: write, object: o, offset: c.offset, data: c.data[:result]})
		}
	case unix.SYS_FTRUNCATE:
		if o, ok := r.file(a.Rdi); ok {
			r.add(operation{kind: truncate, object: o, offset: int64(a.Rsi)})
		}
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		if o, ok := r.file(a.Rdi); ok {
			r.add(operation{kind: sync, object: o, began: c.began})
		}
	}
	return nil
}

func (r *recorder) rename(a *unix.PtraceRegs) error {
	from, err := r.path(a.Rdi, a.Rsi)
	if err != nil {
		return err
	}
	to, err := r.path(a.Rdx, a.R10)
	if err != nil {
		return err
	}
	dir, below := r.directory(from)
	newDir, newBelow := r.directory(to)
	if below != newBelow {
		return fmt.Errorf("a rename from %s to %s, into the directory or out of it, is not modelled", from, to)
	}
	if !below {
		return nil
	}
	name, newName := filepath.Base(from), filepath.Base(to)
	o := r.names[dir][name]
	r.add(operation{kind: rename, object: o, dir: dir, newDir: newDir, name: name, newName: newName})
	delete(r.names[dir], name)
	r.enter(newDir, newName, o)
	return nil
}

func (r *recorder) add(o operation) { r.log.operations = append(r.log.operations, o) }

func (r *recorder) enter(dir object, name string, o object) {
	if r.names[dir] == nil {
		r.names[dir] = map[string]object{}
	}
	r.names[dir][name] = o
}

// create records a new object at a path, if that is below the directory.
func (r *recorder) create(path string, ino uint64, mode fs.FileMode, target string) {
	dir, ok := r.directory(path)
	if !ok {
		return
	}
	r.next++
	r.inodes[ino] = r.next
	r.log.kinds[r.next], r.log.targets[r.next] = mode, target
	r.enter(dir, filepath.Base(path), r.next)
	r.add(operation{kind: create, object: r.next, dir: dir, name: filepath.Base(path)})
}
