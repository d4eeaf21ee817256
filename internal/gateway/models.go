package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Models finds the backend that answers a request for a model. Its methods may be
// called from any goroutine.
type Models interface {
	// Resolve returns the model that a client's name means: its name or one of its
	// aliases; "" means the only model, or the default one. It loads nothing. The
	// error is ErrUnknownModel or ErrNoModelName.
	Resolve(name string) (ModelStatus, error)
	// Acquire returns a lease on a model. It loads the model if necessary and waits
	// for it, in the order of priority and then of arrival, until ctx is done; the
	// lease does not depend on ctx. The error is that of
	// Resolve, ErrLoading or ErrNotLoaded where the request does not wait, a
	// QueueFullError, a NoRoomError, a LoadError, or the cause of ctx.
	Acquire(ctx context.Context, r AcquireRequest) (Lease, error)
	// List returns all models in the order of their names.
	List() []ModelStatus
	// Load loads a model and returns when its state is ModelLoaded, with the errors
	// of Acquire.
	Load(ctx context.Context, name string) error
	// Unload unloads a model once its leases are released, and returns when its
	// memory is free. The error is that of Resolve, ErrNotLoaded, or the cause of ctx.
	Unload(ctx context.Context, name string) error
	// Watch sends each change of a model's state until ctx is done, and then closes
	// the channel. A receiver that is slow misses changes, but never the last one of
	// a model.
	Watch(ctx context.Context) <-chan ModelStatus
}

// AcquireRequest asks for a lease.
type AcquireRequest struct {
	// Name is the model's name, as for Models.Resolve.
	Name string
	// Client names the one who asks, for fairness between clients that wait.
	Client string
	// Priority orders the requests that wait: the highest first. 0 is normal.
	Priority int
	// LoadedOnly returns ErrNotLoaded where the model would have to be loaded.
	LoadedOnly bool
	// Progress is called, from another goroutine and never twice at once, while the
	// request waits; nil: it is not. It must not block, and it is not called after
	// Acquire has returned.
	Progress func(LoadProgress)
}

// LoadProgress is how far the load of a model is that a request waits for.
type LoadProgress struct {
	Model string
	State ModelState
	// Fraction is the part of the model that is loaded, from 0 to 1.
	Fraction float64
	// Ahead is how many requests are served before this one, 0 where that is not
	// known.
	Ahead int
}

// Lease keeps a model loaded until Release, which may be called more than once.
type Lease interface {
	// Backend answers the requests for the model.
	Backend() Backend
	// Slots is how many requests the backend computes side by side; 0: unknown.
	Slots() int
	// Model is the model's name, never an alias.
	Model() string
	// Release ends the lease.
	Release()
}

// ModelState is what a model is doing.
type ModelState string

// The states of a model. A model whose load failed, or whose process ended for
// good, is ModelFailed until the next request loads it again.
const (
	ModelUnloaded  ModelState = "unloaded"
	ModelLoading   ModelState = "loading"
	ModelLoaded    ModelState = "loaded"
	ModelUnloading ModelState = "unloading"
	ModelFailed    ModelState = "failed"
)

// ModelStatus describes a model.
type ModelStatus struct {
	Name    string
	Aliases []string
	// Path is the model's first file, Size the bytes of all of them.
	Path string
	Size int64
	// State is what the model is doing, Progress how much of it is loaded while it
	// is ModelLoading, from 0 to 1.
	State    ModelState
	Progress float64
	// Process is the state of its llama-server, supervise.Stopped where there is
	// none.
	Process supervise.State
	// Capabilities are what clients can use the model for.
	Capabilities []Capability
	// Context is the number of tokens of its context for each slot, 0: unknown.
	Context int
	// Fits reports whether the model can be loaded on this machine; Why are the
	// plan's reasons.
	Fits bool
	Why  []string
	// Err is the typed cause of the last failure, nil after a load that succeeded.
	// It may hold paths and the log of llama-server; Cause is what clients may read
	// of it.
	Err   error
	Cause string
	// LoadTime is how long the last load took, LastUse when the last lease ended.
	LoadTime time.Duration
	LastUse  time.Time
	// Running and Waiting count the requests that have a lease or wait for one.
	Running, Waiting int
	// Pinned models are never unloaded to make room.
	Pinned bool
}

// Capability is a use of a model.
type Capability string

// The capabilities of models, as /v1/models lists them.
const (
	CanComplete Capability = "completion"
	CanChat     Capability = "chat"
	CanEmbed    Capability = "embeddings"
	CanRerank   Capability = "rerank"
	CanSee      Capability = "vision"
	CanHear     Capability = "audio"
)

var (
	// ErrUnknownModel rejects a name that no model has.
	ErrUnknownModel = errors.New("there is no such model")
	// ErrNoModelName rejects a request without a name where there are several
	// models and no default.
	ErrNoModelName = errors.New("the request names no model, and there are several")
	// ErrNotLoaded is returned where a model is not loaded, and must not be or need
	// not be.
	ErrNotLoaded = errors.New("the model is not loaded")
	// ErrLoading is returned for a model that loads, where requests do not wait.
	ErrLoading = errors.New("the model is loading")
	// ErrOnlyModel is returned where the only model of a service would be unloaded.
	ErrOnlyModel = errors.New("the service has only this model, which stays loaded")
)

// QueueFullError rejects a request because too many wait for the model.
type QueueFullError struct {
	Model string
	// RetryAfter is when to try again; 0: unknown.
	RetryAfter time.Duration
}

// Error implements error.
func (e *QueueFullError) Error() string {
	return fmt.Sprintf("too many requests wait for the model %q; retry later", e.Model)
}

// NoRoomError rejects a model that does not fit into the memory of this machine.
type NoRoomError struct {
	Model string
	// Reasons are the plan's, a sentence each.
	Reasons []string
	// RetryAfter is when there may be room again; 0: the model does not fit even
	// alone.
	RetryAfter time.Duration
}

// Error implements error.
func (e *NoRoomError) Error() string {
	text := fmt.Sprintf("the model %q does not fit into the free memory", e.Model)
	for _, reason := range e.Reasons {
		text += "; " + reason
	}
	return text
}

// LoadError reports a model that could not be loaded.
type LoadError struct {
	Model string
	Err   error
	// RetryAfter is when the next request loads the model again; 0: at once.
	RetryAfter time.Duration
}

// Error implements error.
func (e *LoadError) Error() string { return fmt.Sprintf("load the model %q: %v", e.Model, e.Err) }

// Unwrap returns the cause.
func (e *LoadError) Unwrap() error { return e.Err }
