package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Conditions that errors of this package wrap.
var (
	// ErrUnknownModel reports a name without a model.
	ErrUnknownModel = errors.New("unknown model")
	// ErrQueueFull reports that too many requests wait for the model.
	ErrQueueFull = errors.New("too many requests wait for the model")
	// ErrNoRoom reports that the model does not fit into the memory that there is.
	ErrNoRoom = errors.New("no room for the model")
	// ErrDeadline reports that the model was not ready in time.
	ErrDeadline = errors.New("the model was not ready in time")
	// ErrPinned reports that a pinned model was asked to be unloaded.
	ErrPinned = errors.New("the model is pinned")
	// ErrNotLoaded reports that the model is not loaded.
	ErrNotLoaded = errors.New("the model is not loaded")
	// ErrUnloaded reports that the model was unloaded on request while it loaded.
	ErrUnloaded = errors.New("the model was unloaded on request")
	// ErrClosed reports that the scheduler is closed.
	ErrClosed = errors.New("closed")
)

// NoRoomError says why a model has no room. It wraps ErrNoRoom.
type NoRoomError struct {
	// Reasons has a sentence for each way to place the model.
	Reasons []string
	// Cause is the error of planning the model, if there is no way to place it.
	Cause error
	// Temporary says that other programs hold the memory, and may free it.
	Temporary bool
}

// Error implements error.
func (e *NoRoomError) Error() string {
	switch {
	case e.Cause != nil:
		return ErrNoRoom.Error() + ": " + e.Cause.Error()
	case len(e.Reasons) > 0:
		return ErrNoRoom.Error() + ": " + strings.Join(e.Reasons, "; ")
	}
	return ErrNoRoom.Error()
}

// Unwrap returns ErrNoRoom and the cause.
func (e *NoRoomError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrNoRoom}
	}
	return []error{ErrNoRoom, e.Cause}
}

// FailedError reports that the model failed, and is not tried again before RetryAt.
type FailedError struct {
	Cause   error
	RetryAt time.Time
}

// Error implements error.
func (e *FailedError) Error() string { return fmt.Sprintf("the model failed: %v", e.Cause) }

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Cause }
