package supervise

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one run of the program.
type process struct {
	pid   int
	start uint64 // start time in clock ticks since boot, 0 where it could not be read
	gen   int    // which run of its child this is, from 1
	stdin *os.File
	tail  *logTail
	// speaks is set once the program told its state on stdout: it then takes
	// the exit line on stdin.
	speaks chan struct{}

	// base and probe reach this process and no other: what is under way when
	// another takes its place breaks, and never ends up there.
	base    *http.Transport          // for its users
	probe   *http.Transport          // for what is asked about it
	listens atomic.Pointer[listener] // for TCP, once it was found

	// Until reaped is set, nothing else can have the number pid, as a process or
	// as a group.
	reaping sync.Mutex
	reaped  bool

	exited chan struct{} // closed when it is reaped and its output is read
	status exitStatus    // valid after exited
	began  time.Time
	ready  time.Time     // when /health first said so; for the owner of the state alone
	oom    func() uint64 // our control group's count of OOM kills at the start
}

type exitStatus struct {
	code   int
	signal syscall.Signal
	core   bool
	err    error
}

// exitLine asks llama-server to end (CMD_ROUTER_TO_CHILD_EXIT in
// tools/server/server-models.cpp).
const exitLine = "cmd_router_to_child:exit\n"

// spawn starts the program and gives it back running.
func spawn(argv, env []string, dir, marker string, inherit []*os.File, tail *logTail) (*process, error) {
	p := &process{tail: tail, exited: make(chan struct{}), speaks: make(chan struct{}), oom: sync.OnceValue(oomKills)}
	go p.oom() // beside the start, which need not wait for it
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe for llama-server: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW)
		return nil, fmt.Errorf("pipe for llama-server: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW, outR, outW)
		return nil, fmt.Errorf("pipe for llama-server: %w", err)
	}
	p.stdin = inW
	started := make(chan error, 1)
	go p.live(argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: append([]*os.File{inR, outW, errW}, inherit...),
		// Pdeathsig goes by the thread that forked: live holds it.
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}, marker, []*os.File{outR, errR}, started)
	err = <-started
	closeAll(inR, outW, errW)
	if err != nil {
		closeAll(inW, outR, errR)
		return nil, startError(argv[0], dir, err)
	}
	return p, nil
}

// live holds one thread from the fork to the reaping of the child.
func (p *process) live(argv []string, attr *os.ProcAttr, marker string, outputs []*os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.began = time.Now()
	proc, err := os.StartProcess(argv[0], argv, attr)
	if err != nil {
		started <- err
		return
	}
	p.pid = proc.Pid
	p.start, _ = startTime(p.pid) // else nothing will match 0
	read := make(chan struct{}, len(outputs))
	for _, r := range outputs {
		go func() { p.tail.consume(r); read <- struct{}{} }()
	}
	started <- nil

	p.oom() // has been read before this process can have ended
	p.waitUnreaped()
	// The leader is a zombie: its group's number cannot be given to another.
	p.signal(unix.SIGKILL)
	p.reaping.Lock()
	p.reaped = true
	p.reaping.Unlock()
	state, err := proc.Wait()
	p.status = statusOf(state, err)
	killMarked(marker) // those that left the group
	for _, r := range outputs {
		_ = r.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}
	for range outputs {
		<-read
	}
	closeAll(outputs...)
	_ = p.stdin.Close()
	close(p.exited)
}

// waitUnreaped blocks until the process has ended and leaves it a zombie. It
// waits on a pidfd where the kernel has one, so that no other process is meant.
func (p *process) waitUnreaped() {
	idType, id := unix.P_PID, p.pid
	if fd, err := unix.PidfdOpen(p.pid, 0); err == nil {
		idType, id = unix.P_PIDFD, fd
		defer func() { _ = unix.Close(fd) }()
	}
	for {
		err := unix.Waitid(idType, id, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// over reports whether the process has ended and was reaped.
func (p *process) over() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func statusOf(state *os.ProcessState, err error) exitStatus {
	if err != nil {
		return exitStatus{code: -1, err: err}
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return exitStatus{code: -1, signal: ws.Signal(), core: ws.CoreDump()}
	}
	return exitStatus{code: state.ExitCode()}
}

// signal sends sig to the whole group, unless the leader has been reaped. It
// opens nothing: a program without a free descriptor ends its child as well.
func (p *process) signal(sig syscall.Signal) {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.pid, sig)
	}
}

// ending reports whether the process is gone or seen to be about to. A GPU's
// driver may take seconds over the end of one, in which its connections are
// closed and it is no zombie yet.
func (p *process) ending() bool {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if p.reaped {
		return true
	}
	s, err := readStat(p.pid)
	return err == nil && (s.dead() || s.exiting())
}

// speakGrace is how long the line "ready" may be on its way after /health has
// said the same.
const speakGrace = 100 * time.Millisecond

// askExit writes the exit line, where the program understands it. A program that
// has just become ready is given the time to say that it does: on SIGTERM the
// handler of llama-server v0.5.0 takes the lock of its queue, and waits for ever
// when the thread that it interrupts holds it (server.cpp, server-queue.cpp).
func (p *process) askExit() bool {
	grace := time.NewTimer(speakGrace)
	defer grace.Stop()
	select {
	case <-p.speaks:
	case <-p.exited:
		return true
	case <-grace.C:
		return false
	}
	_ = p.stdin.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := p.stdin.WriteString(exitLine)
	return err == nil
}

// oomStruck reports whether the kernel's OOM killer struck in our control group
// since the process began.
func (p *process) oomStruck() bool { return oomKills() > p.oom() }

// startError says what to do about a program that could not be executed.
func startError(program, dir string, err error) error {
	remedy := ""
	kind := error(nil)
	switch {
	case errors.Is(err, unix.ENOENT):
		remedy, kind = fmt.Sprintf("see that %s and the folder %s are there", program, dir), ErrLibraryMissing
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		remedy, kind = "make it executable and see that its folder is not mounted noexec", ErrPermission
	case errors.Is(err, unix.ENOEXEC):
		remedy, kind = "it is not a program for this machine", ErrUnsupportedPlatform
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		remedy = "raise the limit of processes and open files (ulimit -u, ulimit -n)"
	case errors.Is(err, unix.ENOMEM):
		remedy, kind = remedyHostMem, ErrOutOfMemory
	case errors.Is(err, unix.ETXTBSY):
		remedy = "it is still being written: try again"
	}
	if kind != nil {
		return fmt.Errorf("start llama-server: %w: %w; %s", kind, err, remedy)
	}
	if remedy != "" {
		return fmt.Errorf("start llama-server: %w; %s", err, remedy)
	}
	return fmt.Errorf("start llama-server: %w", err)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
