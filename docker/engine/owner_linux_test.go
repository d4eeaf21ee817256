package engine

import (
	"os"
	"os/exec"
	"testing"
)

// The real process: this one runs, one that was waited for does not.
func TestSelf(t *testing.T) {
	me, err := currentOwner()
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := parseOwner(me.String()); !ok || o != me || o.hasExited(me, startTime) {
		t.Errorf("this process: %+v", me)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := me
	child.pid = cmd.Process.Pid
	child.start = startTime(child.pid)
	if child.hasExited(me, startTime) {
		t.Error("a child is held for dead before it was waited for")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !child.hasExited(me, startTime) {
		t.Error("a child that has ended is held for alive")
	}
}
