package rocm

import (
	"fmt"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// No request makes another backend take over.
func TestIsBackendFailure(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"fault":                  {&supervise.ExitError{Signal: syscall.SIGABRT, Kind: supervise.ErrGPUFault, State: supervise.Ready}, true},
		"stall in a decode":      {&supervise.HangError{Kind: supervise.ErrStalled}, true},
		"template without end":   {fmt.Errorf("serve: %w", &supervise.HangError{Kind: supervise.ErrStalled, Unanswered: true}), false},
		"crash while loading":    {&supervise.ExitError{Signal: syscall.SIGSEGV, State: supervise.Loading}, true},
		"crash while serving":    {&supervise.ExitError{Signal: syscall.SIGSEGV, State: supervise.Ready}, false},
		"killed from outside":    {&supervise.ExitError{Signal: syscall.SIGKILL, State: supervise.Loading}, false},
		"memory while it serves": {&supervise.ExitError{Signal: syscall.SIGKILL, Kind: supervise.ErrHostMemory, State: supervise.Ready}, false},
	} {
		if got := isBackendFailure(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
