package supervise

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	recordName = "child.json"
	// runNameBytes are in the name of a run's folder, in hex: it leaves the
	// socket's path short.
	runNameBytes = 4
	// youngRun is how old a folder without a readable record must be before it
	// counts as abandoned rather than as being made.
	youngRun = time.Minute
)

// record is what lies beside a child's socket, so that the next start can end
// what a killed parent left behind.
type record struct {
	Boot        string `json:"boot"`
	Parent      int    `json:"parent"`
	ParentStart uint64 `json:"parent_start"`
	Child       int    `json:"child,omitempty"`
	ChildStart  uint64 `json:"child_start,omitempty"`
	Marker      string `json:"marker"`
	ShortDir    string `json:"short_dir,omitempty"`
}

// newID gives n random bytes in hex.
func newID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// newRunName is a name for a run's folder.
func newRunName() string { return newID(runNameBytes) }

// isRunName tells the folders of runs from others that lie beside them.
func isRunName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == runNameBytes && hex.EncodeToString(b) == name
}

// newRecord is a record of a child that this process is about to start.
func newRecord() (record, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return record{}, fmt.Errorf("when this process began: %w; is /proc mounted?", err)
	}
	return record{Boot: bootID(), Parent: os.Getpid(), ParentStart: start, Marker: newID(12)}, nil
}

// write puts the record into dir so that no reader sees half of it.
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

// ReapOrphans ends what processes that died without stopping their children
// left under socketDir, and removes their sockets; empty means the default
// folder. Only a process whose start time (and boot) is the recorded one, or
// that carries the recorded marker in its environment, is touched, and nothing
// of a run whose folder is still held (see lockRun), or of a folder that has not
// the name of one. Start calls it; it gives how
// many processes it ended.
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
		return 0, fmt.Errorf("look for orphans: %w", err)
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
		return 0 // held by its maker, or gone
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
		if time.Since(time.Unix(st.Mtim.Unix())) > youngRun && looksLikeRun(dir) {
			removeRun(dir)
		}
		return 0
	}
	sameBoot := r.Boot == bootID()
	if sameBoot && alive(r.Parent, r.ParentStart) {
		return 0
	}
	killed := 0
	if sameBoot {
		if r.Child > 0 && killChecked(r.Child, func() bool { return alive(r.Child, r.ChildStart) }) {
			killed++
		}
		killed += killMarked(r.Marker)
	}
	if killed > 0 {
		log.Warn("ended llama-server processes that a dead parent left", "count", killed, "parent", r.Parent)
	}
	if r.ShortDir != "" && looksLikeRun(r.ShortDir) {
		removeRun(r.ShortDir)
	}
	removeRun(dir)
	return killed
}

// looksLikeRun keeps the sweep from removing a folder that is not of our kind:
// ours hold nothing but a socket and a record.
func looksLikeRun(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !slices.Contains(ofRun(), e.Name()) {
			return false
		}
	}
	return true
}

// ofRun are the names of what lies in a run's folder.
func ofRun() []string { return []string{recordName, recordName + ".new", socketName} }

// removeRun removes the folder of a run. What is known to lie there goes by its
// name, which takes no descriptor; what else a program may have put there needs
// one.
func removeRun(dir string) {
	for _, name := range ofRun() {
		_ = os.Remove(filepath.Join(dir, name))
	}
	_ = os.RemoveAll(dir)
}
