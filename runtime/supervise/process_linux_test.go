package supervise

import (
	"os"
	"testing"
)

// A process that was reaped counts as exiting, one that runs does not.
func TestProcessIsExiting(t *testing.T) {
	p := &process{pid: os.Getpid()}
	if p.isExiting() {
		t.Error("this process is reported as exiting")
	}
	if p.reaped = true; !p.isExiting() {
		t.Error("a reaped process is not reported as exiting")
	}
}
