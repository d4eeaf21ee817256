//go:build linux

package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/procstat"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// Fault 23: the parent is killed with SIGKILL; no child may outlive it.
func TestFault23_ParentKilled(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		cmd, child, marker := startParent(t, dir, roleServer, fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}})
		killProcess(t, cmd)
		poll.Until(t, "the child to exit with its parent", func() bool { return !isProcessRunning(child) })
		if n, err := ReapOrphans(dir, nil); err != nil || n != 0 {
			t.Errorf("killed %d orphans (%v), want none", n, err)
		}
		nothingLeft(t, dir, marker)
	})
}

// Fault 23: PDEATHSIG is sent when the thread that forked exits, so that thread must
// live as long as the child.
func TestFault23_ThreadStaysLocked(t *testing.T) {
	mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	buf := make([]byte, 1<<20)
	found := 0
	for _, stack := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if !bytes.Contains(stack, []byte("(*process).runOnThread(")) {
			continue
		}
		found++
		if head, _, _ := bytes.Cut(stack, []byte("\n")); !bytes.Contains(head, []byte("locked to thread")) {
			t.Errorf("the child's goroutine may change its thread: %s", head)
		}
	}
	if found != 1 {
		t.Errorf("%d goroutines run a child, want 1", found)
	}
}

// Fault 24: grandchildren survive the child: in its group, in their own session, and
// both when the parent was killed.
func TestFault24_Grandchildren(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{Grandchild: true}}))
		if n := len(processesWithMarker(c.record.Marker)); n != 2 {
			t.Fatalf("%d processes, want child and grandchild", n)
		}
		stopClean(t, c)

		c = mustStart(t, fakeSpec(t, roleEscape, fakellama.Script{Process: fakellama.Process{Grandchild: true}}))
		if n := len(processesWithMarker(c.record.Marker)); n != 3 {
			t.Fatalf("%d processes, want child and two grandchildren", n)
		}
		if err := unix.Kill(c.Pid(), unix.SIGSEGV); err != nil { // a crash leaves none either
			t.Fatal(err)
		}
		<-c.Done()
		stopClean(t, c)

		dir := filepath.Join(t.TempDir(), "run")
		cmd, child, marker := startParent(t, dir, roleEscape, fakellama.Script{Process: fakellama.Process{Grandchild: true}})
		killProcess(t, cmd)
		poll.Until(t, "the child to exit with its parent", func() bool { return !isProcessRunning(child) })
		if n, err := ReapOrphans(dir, nil); err != nil || n != 2 {
			t.Errorf("killed %d orphans (%v), want both grandchildren", n, err)
		}
		nothingLeft(t, dir, marker)
	})
}

// Fault 24: a process of the group without the marker is killed with the leader.
func TestFault24_GroupMemberWithoutMarker(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.Argv = []string{"sh", "-c", fmt.Sprintf(`env -i sleep 600 & echo $! >%s; exec "$0" "$@"`, file), os.Args[0]}
		c := mustStart(t, spec)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(string(raw), &pid); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, "the grandchild to lose its marker", func() bool {
			return isProcessRunning(pid) && !hasMarker(pid, c.record.Marker)
		})
		start, err := procstat.Read(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { killIf(pid, func() bool { return procstat.IsRunning(pid, start.Start) }) }) // in case the test fails
		stopClean(t, c)
		poll.Until(t, "the grandchild to exit", func() bool { return !procstat.IsRunning(pid, start.Start) })
	})
}

// Fault 25: the recorded pid now belongs to another process.
func TestFault25_ReusedPid(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		bystander := exec.Command(os.Args[0])
		bystander.Env = append(os.Environ(), roleName+"="+roleServer, "FAKELLAMA_GRANDCHILD=1")
		if err := bystander.Start(); err != nil {
			t.Fatal(err)
		}
		defer killProcess(t, bystander)
		start, err := procstat.Read(bystander.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "run")
		for name, r := range map[string]record{
			"00000001": {Boot: procstat.BootID(), Parent: os.Getpid(), ParentStart: 1, Child: bystander.Process.Pid, ChildStart: start.Start - 1, Marker: newID(12)},
			"00000002": {Boot: "before", Parent: os.Getpid(), ParentStart: 1, Child: bystander.Process.Pid, ChildStart: start.Start, Marker: newID(12)},
		} {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := r.write(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := ReapOrphans(dir, nil); err != nil || n != 0 {
			t.Errorf("killed %d processes (%v), want none", n, err)
		}
		if !isProcessRunning(bystander.Process.Pid) {
			t.Error("another process was killed")
		}
		nothingLeft(t, dir, "no such marker")
	})
}

// A run whose directory its parent has locked is left alone, whatever the pid in the
// record means here: the parent may run in another container.
func TestLockedRunIsNotReaped(t *testing.T) {
	dir := t.TempDir()
	run := dir + "/0123abcd"
	if err := unix.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockNewRun(run)
	if err != nil || lock == nil {
		t.Fatalf("%v, %v", lock, err)
	}
	if err := (record{Boot: "of another machine", Parent: 1, ParentStart: 1, Marker: newID(12)}).write(run); err != nil {
		t.Fatal(err)
	}
	if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
		t.Errorf("killed %d, %v; want none", n, err)
	}
	if err := unix.Access(run+"/"+recordName, unix.F_OK); err != nil {
		t.Errorf("the directory of a live run: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
		t.Errorf("killed %d, %v; want none", n, err)
	}
	nothingLeft(t, dir, "no such marker")
}
