package metrics

import (
	"errors"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// kinds are the errors of the supervisor by the value of a label, the specific ones
// first.
func kinds() []struct {
	err  error
	name string
} {
	return []struct {
		err  error
		name string
	}{
		{supervise.ErrCrashLoop, "crash_loop"},
		{supervise.ErrMemoryLimit, "memory_limit"},
		{supervise.ErrHostMemory, "host_memory"},
		{supervise.ErrOutOfMemory, "out_of_memory"},
		{supervise.ErrGPUHang, "gpu_hang"},
		{supervise.ErrGPUFault, "gpu_fault"},
		{supervise.ErrGPUIllegalInstruction, "gpu_illegal_instruction"},
		{supervise.ErrUnsupportedTarget, "unsupported_target"},
		{supervise.ErrModelInvalid, "model_invalid"},
		{supervise.ErrBadTemplate, "bad_template"},
		{supervise.ErrLibraryMissing, "library_missing"},
		{supervise.ErrPermission, "permission"},
		{supervise.ErrNoDevice, "no_device"},
		{supervise.ErrBadArgument, "bad_argument"},
		{supervise.ErrListen, "listen"},
		{supervise.ErrStalled, "stalled"},
		{supervise.ErrStartTimeout, "start_timeout"},
		{supervise.ErrWrongPeer, "wrong_peer"},
		{supervise.ErrStopped, "stopped"},
	}
}

// Kind returns the value of a label for an error of the supervisor: "killed" for a
// process that a signal ended, "exited" for one that ended by itself, where nothing
// better is known.
func Kind(err error) string {
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	var exit *supervise.ExitError
	switch {
	case errors.As(err, &exit) && exit.Signal != 0:
		return "killed"
	case errors.As(err, &exit):
		return "exited"
	}
	return "other"
}
