package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Models finds the backend that answers a request for a model. Its methods may be
// called from any goroutine.
type Models interface {
	// Resolve returns the model that a client's name means: its name or one of its
	// aliases; "" means the only model, or the default one. It loads nothing. The
	// error is ErrUnknownModel or ErrNoModelName.
	Resolve(name string) (rocm.ModelStatus, error)
	// Acquire returns a lease on a model. It loads the model if necessary and waits
	// for it, in the order of priority and then of arrival, until ctx is done; the
	// lease does not depend on ctx. Progress is called from another goroutine, never
	// twice at once, and not after Acquire has returned. The error is that of
	// Resolve, ErrLoading or ErrNotLoaded where the request does not wait, a
	// QueueFullError, a NoRoomError, a LoadError, ErrUnloaded, or the cause of ctx.
	Acquire(ctx context.Context, r rocm.AcquireRequest) (Lease, error)
	// List returns all models in the order of their names.
	List() []rocm.ModelStatus
	// Load loads a model and returns when its state is rocm.ModelLoaded, with the errors
	// of Acquire.
	Load(ctx context.Context, name string) error
	// Unload unloads a model once its leases are released, and returns when its
	// memory is free. The error is that of Resolve, ErrNotLoaded, or the cause of ctx.
	Unload(ctx context.Context, name string) error
	// Watch sends each change of a model's state until ctx is done, and then closes
	// the channel. A receiver that is slow misses changes, but never the last one of
	// a model.
	Watch(ctx context.Context) <-chan rocm.ModelStatus
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

// capabilities returns what clients can use a model for.
func capabilities(m rocm.ModelStatus) []Capability {
	list := []Capability{}
	add := func(is bool, c Capability) {
		if is {
			list = append(list, c)
		}
	}
	generates := !m.Embeddings && !m.Reranking
	add(generates, CanComplete)
	add(generates && m.ChatTemplate, CanChat)
	add(m.Embeddings, CanEmbed)
	add(m.Reranking, CanRerank)
	add(generates && m.Vision, CanSee)
	add(generates && m.Audio, CanHear)
	return list
}

// loadedFraction returns how much of a model is loaded. Unpacking and starting are not
// a part of it.
func loadedFraction(p rocm.LoadProgress) float64 {
	if p.Stage != rocm.StageLoad {
		return 0
	}
	return p.Done
}

// publicCause returns what clients may read about a failure: its kind, without the
// paths and the log that the error may hold; "" for none.
func publicCause(err error) string {
	if err == nil {
		return ""
	}
	for _, kind := range []error{
		supervise.ErrHostMemory, supervise.ErrOutOfMemory, supervise.ErrGPUHang, supervise.ErrGPUFault, supervise.ErrGPUIllegalInstruction,
		supervise.ErrUnsupportedTarget, supervise.ErrModelInvalid, supervise.ErrLibraryMissing, supervise.ErrPermission, supervise.ErrNoDevice, supervise.ErrBadArgument,
		supervise.ErrStalled, supervise.ErrStartTimeout, supervise.ErrCrashLoop,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "the log of the service has the cause"
}

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
	// ErrUnloaded is returned to requests that waited for a model while somebody
	// unloaded it.
	ErrUnloaded = errors.New("the model was unloaded on request while it loaded; a further request loads it again")
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
