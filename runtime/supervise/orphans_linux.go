package supervise

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/procstat"
)

const (
	recordName = "child.json"
	// runNameBytes is the length of the name of a run's directory, which is written
	// in hex. It keeps the socket's path short.
	runNameBytes = 4
	// minOrphanAge is how old a directory without a readable record must be before it
	// counts as abandoned. A younger one may be under construction.
	minOrphanAge = time.Minute
	// lockTimeout limits the wait for the lock on a new run's directory. A search for
	// orphans may own the lock for a moment.
	lockTimeout = 5 * time.Second
)

// record describes a running child. Its file is next to the child's socket, so that the next
// start can kill the remaining processes of a dead parent.
type record struct {
	Boot        string `json:"boot"`
	Parent      int    `json:"parent"`
	ParentStart uint64 `json:"parent_start"`
	Child       int    `json:"child,omitempty"`
	ChildStart  uint64 `json:"child_start,omitempty"`
	Marker      string `json:"marker"`
	ShortDir    string `json:"short_dir,omitempty"`
}

// newRecord returns the record of a child that this process is about to start.
func newRecord() (record, error) {
	self, err := procstat.Read(os.Getpid())
	if err != nil {
		return record{}, fmt.Errorf("read the start time of this process: %w; is /proc mounted?", err)
	}
	return record{Boot: procstat.BootID(), Parent: os.Getpid(), ParentStart: self.Start, Marker: newID(12)}, nil
}

// write replaces the record in dir atomically.
func (r record) write(dir string) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordName+".new")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("record the child: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordName)); err != nil {
		return fmt.Errorf("record the child: %w", err)
	}
	return nil
}

// newID returns n random bytes in hex.
func newID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// newRunName returns a name for a run's directory.
func newRunName() string { return newID(runNameBytes) }

// isRunName reports whether name is one that newRunName returns. Other directories
// may lie beside those of runs.
func isRunName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == runNameBytes && hex.EncodeToString(b) == name
}

// ReapOrphans kills the processes that dead parents left under socketDir, and
// removes their sockets. Empty means the default directory. It returns how many
// processes it killed. Start calls it.
//
// It kills a process only if its start time and boot are the recorded ones, or if
// its environment contains the recorded marker. It leaves a run whose directory is
// still locked (see lockRun), and a directory whose name is not that of a run.
func ReapOrphans(socketDir string, log *slog.Logger) (int, error) {
	if socketDir == "" {
		var err error
		if socketDir, err = defaultSocketDir(); err != nil {
			return 0, err
		}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	entries, err := os.ReadDir(socketDir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("search for orphans: %w", err)
	}
	killed := 0
	for _, e := range entries {
		if !e.IsDir() || !isRunName(e.Name()) {
			continue
		}
		killed += reapRun(filepath.Join(socketDir, e.Name()), log)
	}
	return killed, nil
}

func reapRun(dir string, log *slog.Logger) int {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || int(st.Uid) != os.Geteuid() {
		return 0
	}
	lock, err := lockRun(dir)
	if err != nil {
		return 0 // locked by its parent, or gone
	}
	if lock != nil {
		defer func() { _ = lock.Close() }()
	}
	raw, err := os.ReadFile(filepath.Join(dir, recordName))
	var r record
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil || r.Marker == "" {
		if time.Since(time.Unix(st.Mtim.Unix())) > minOrphanAge && isRunDir(dir) {
			removeRunDir(dir)
		}
		return 0
	}
	sameBoot := r.Boot == procstat.BootID()
	if sameBoot && procstat.IsRunning(r.Parent, r.ParentStart) {
		return 0
	}
	killed := 0
	if sameBoot {
		if r.Child > 0 && killIf(r.Child, func() bool { return procstat.IsRunning(r.Child, r.ChildStart) }) {
			killed++
		}
		killed += killMarked(r.Marker)
	}
	if killed > 0 {
		log.Warn("killed llama-server processes that a dead parent left", "count", killed, "parent", r.Parent)
	}
	if r.ShortDir != "" && isRunDir(r.ShortDir) {
		removeRunDir(r.ShortDir)
	}
	removeRunDir(dir)
	return killed
}

// isRunDir reports whether dir contains nothing but the files of a run, so that
// the search for orphans removes no other directory.
func isRunDir(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !slices.Contains(runFileNames(), e.Name()) {
			return false
		}
	}
	return true
}

// runFileNames returns the names of the files in a run's directory.
func runFileNames() []string { return []string{recordName, recordName + ".new", socketName} }

// removeRunDir removes the directory of a run. It removes the known files by name,
// which needs no descriptor; files that the program may have added need one.
func removeRunDir(dir string) {
	for _, name := range runFileNames() {
		_ = os.Remove(filepath.Join(dir, name))
	}
	_ = os.RemoveAll(dir)
}

// errRunLocked means that the process that created a run's directory is alive.
var errRunLocked = errors.New("the run's directory is locked")

// lockRun locks the directory of a run with flock(2). The kernel releases the lock
// when this process ends, however that happens. Unlike a pid, the lock also works
// for a process in another container, or on another machine, that shares the
// directory. On a file system without flock the returned file is nil.
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
		err = errRunLocked
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF):
		err = nil // no locks here: the recorded pids must do
	}
	return nil, errors.Join(err, unix.Close(fd))
}

// lockNewRun locks a directory that this process has just created.
func lockNewRun(dir string) (*os.File, error) {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		f, err := lockRun(dir)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errRunLocked) || time.Now().After(end) {
			return nil, fmt.Errorf("lock the socket directory: %w", err)
		}
	}
}

// processesWithMarker returns the processes of this user whose environment
// contains the marker.
func processesWithMarker(marker string) []int {
	if marker == "" {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && hasMarker(pid, marker) {
			out = append(out, pid)
		}
	}
	return out
}

// hasMarker reports whether the environment of a process contains the marker. It
// returns false for a process of another user.
func hasMarker(pid int, marker string) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+markerName+"="+marker+"\x00"))
}

// killMarked kills the processes with the marker, and those that they start
// meanwhile. It opens a pidfd before it reads the marker a second time, so that it
// never kills a process with a reused pid. It returns how many it killed.
func killMarked(marker string) int {
	killed := map[int]bool{}
	for found := true; found; {
		found = false
		for _, pid := range processesWithMarker(marker) {
			if !killed[pid] && killIf(pid, func() bool { return hasMarker(pid, marker) }) {
				killed[pid], found = true, true
			}
		}
	}
	return len(killed)
}

// killIf sends SIGKILL to pid if matches returns true while a handle to the
// process is open.
func killIf(pid int, matches func() bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if err == unix.ENOSYS && matches() {
			return unix.Kill(pid, unix.SIGKILL) == nil
		}
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if !matches() {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}
