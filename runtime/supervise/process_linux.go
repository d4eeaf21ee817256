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

	"forge.lthn.ai/core/go-rocm/internal/procstat"
)

// process is one run of the program.
type process struct {
	pid       int
	startTime uint64 // procstat.Stat.Start, 0 if it could not be read
	run       int    // number of the run of its child, from 1
	stdin     *os.File
	tail      *logTail
	// acceptsExit is closed once the program has reported on stdout that it is
	// ready: it then reads the exit command on stdin.
	acceptsExit chan struct{}

	// Both transports reach this process and no other. A request that is under way
	// when the process is replaced breaks and never reaches the next process.
	userTransport  *http.Transport          // for requests of the child's users
	probeTransport *http.Transport          // for /health and /slots
	listener       atomic.Pointer[listener] // the socket found for TCP
	load           load                     // of the child's users
	unanswered     unanswered               // requests without a response
	streams        streams                  // responses that have begun
	abandoned      abandonment              // of requests whose callers have left

	// Until reaped is set, no other process or group can have the number pid.
	reaping sync.Mutex
	reaped  bool

	exited          chan struct{} // closed when the process is reaped and its output is read
	status          exitStatus    // valid after exited
	excess          excess        // set when it was killed for its memory; used by the loop alone
	readyAt         time.Time     // when /health first answered 200; used by the loop alone
	oomKillsAtStart func() uint64 // the control group's count of OOM kills
}

type exitStatus struct {
	code   int
	signal syscall.Signal
	core   bool
	err    error
}

// exitCommand asks llama-server to exit (CMD_ROUTER_TO_CHILD_EXIT in
// tools/server/server-models.cpp).
const exitCommand = "cmd_router_to_child:exit\n"

// spawn starts the program and returns the running process.
func spawn(argv, env []string, dir, marker string, inherit []*os.File, tail *logTail) (*process, error) {
	p := &process{tail: tail, exited: make(chan struct{}), acceptsExit: make(chan struct{}), oomKillsAtStart: sync.OnceValue(oomKills)}
	go p.oomKillsAtStart() // in parallel with the start
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
	go p.runOnThread(argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: append([]*os.File{inR, outW, errW}, inherit...),
		// The kernel sends Pdeathsig when the forking thread exits: runOnThread keeps
		// that thread.
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

// runOnThread keeps one thread from the fork to the reaping of the child.
func (p *process) runOnThread(argv []string, attr *os.ProcAttr, marker string, outputs []*os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	proc, err := os.StartProcess(argv[0], argv, attr)
	if err != nil {
		started <- err
		return
	}
	p.pid = proc.Pid
	if s, err := procstat.Read(p.pid); err == nil {
		p.startTime = s.Start
	}
	read := make(chan struct{}, len(outputs))
	for _, r := range outputs {
		go func() { p.tail.consume(r); read <- struct{}{} }()
	}
	started <- nil

	p.oomKillsAtStart() // read before the process can have been reaped
	p.waitUnreaped()
	// The leader is a zombie: its group's number cannot be reused yet.
	p.signal(unix.SIGKILL)
	p.reaping.Lock()
	p.reaped = true
	p.reaping.Unlock()
	state, err := proc.Wait()
	p.status = statusOf(state, err)
	killMarked(marker) // descendants that left the group
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

// waitUnreaped waits until the process has exited and leaves it a zombie. It
// waits on a pidfd if the kernel offers one, which cannot refer to another process.
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

// hasExited reports whether the process has exited and was reaped.
func (p *process) hasExited() bool {
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
// opens no file, so that it works without a free descriptor.
func (p *process) signal(sig syscall.Signal) {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.pid, sig)
	}
}

// isExiting reports whether the process has exited or is about to. A GPU's driver
// may need seconds for an exit, during which the connections are closed and the
// process is not a zombie yet.
func (p *process) isExiting() bool {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if p.reaped {
		return true
	}
	s, err := procstat.Read(p.pid)
	return err == nil && (s.IsZombie() || s.IsExiting())
}

// readyLineGrace is how long the state line "ready" may arrive after /health
// answered 200.
const readyLineGrace = 100 * time.Millisecond

// requestExit writes the exit command and reports whether the program accepts it.
// A program that has just become ready gets a moment to report so. SIGTERM is no
// substitute: the handler of llama-server v0.5.0 takes the lock of its queue and
// waits forever if the interrupted thread owns it (server.cpp, server-queue.cpp).
func (p *process) requestExit() bool {
	grace := time.NewTimer(readyLineGrace)
	defer grace.Stop()
	select {
	case <-p.acceptsExit:
	case <-p.exited:
		return true
	case <-grace.C:
		return false
	}
	_ = p.stdin.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := p.stdin.WriteString(exitCommand)
	return err == nil
}

// startError adds the cause and the remedy to the error of a program that could not
// be executed.
func startError(program, dir string, err error) error {
	remedy := ""
	kind := error(nil)
	switch {
	case errors.Is(err, unix.ENOENT):
		remedy, kind = fmt.Sprintf("check that %s and the directory %s exist", program, dir), ErrLibraryMissing
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		remedy, kind = "make it executable and check that its directory is not mounted noexec", ErrPermission
	case errors.Is(err, unix.ENOEXEC):
		remedy, kind = "it is not a program for this machine", ErrUnsupportedPlatform
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		remedy = "raise the limit of processes and open files (ulimit -u, ulimit -n)"
	case errors.Is(err, unix.ENOMEM):
		remedy, kind = remedyHostMem, ErrOutOfMemory
	case errors.Is(err, unix.ETXTBSY):
		remedy = "it is still being written: retry"
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
