package cli

import (
	"cmp"
	"context"
	"errors"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// poolModels makes a pool the Models of a gateway.
type poolModels struct{ pool *rocm.Pool }

var _ gateway.Models = poolModels{}

// Resolve implements gateway.Models.
func (m poolModels) Resolve(name string) (gateway.ModelStatus, error) {
	s, err := m.pool.Status(name)
	if err != nil {
		return gateway.ModelStatus{}, gatewayError(name, err)
	}
	return gatewayStatus(s), nil
}

// Acquire implements gateway.Models.
func (m poolModels) Acquire(ctx context.Context, r gateway.AcquireRequest) (gateway.Lease, error) {
	request := rocm.AcquireRequest{Name: r.Name, Priority: r.Priority, LoadedOnly: r.LoadedOnly}
	if r.Progress != nil {
		request.Progress = func(p rocm.LoadProgress) {
			r.Progress(gateway.LoadProgress{Model: r.Name, State: gateway.ModelLoading, Fraction: loadedFraction(p)})
		}
	}
	l, err := m.pool.AcquireWith(ctx, request)
	if err != nil {
		return nil, gatewayError(r.Name, err)
	}
	return poolLease{l}, nil
}

// List implements gateway.Models.
func (m poolModels) List() []gateway.ModelStatus {
	list := []gateway.ModelStatus{}
	for _, s := range m.pool.List() {
		list = append(list, gatewayStatus(s))
	}
	return list
}

// Load implements gateway.Models.
func (m poolModels) Load(ctx context.Context, name string) error {
	return gatewayError(name, m.pool.Load(ctx, name))
}

// Unload implements gateway.Models.
func (m poolModels) Unload(ctx context.Context, name string) error {
	return gatewayError(name, m.pool.Unload(ctx, name))
}

// Watch implements gateway.Models.
func (m poolModels) Watch(ctx context.Context) <-chan gateway.ModelStatus {
	out := make(chan gateway.ModelStatus)
	go func() {
		defer close(out)
		for s := range m.pool.Watch(ctx) {
			select {
			case out <- gatewayStatus(s):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// poolLease implements gateway.Lease.
type poolLease struct{ *rocm.Lease }

// Backend implements gateway.Lease.
func (l poolLease) Backend() gateway.Backend { return l.Lease.Model().Server().Child }

// Slots implements gateway.Lease.
func (l poolLease) Slots() int { return l.Lease.Model().Server().Plan.Slots }

// Model implements gateway.Lease.
func (l poolLease) Model() string { return l.Name() }

// loadedFraction returns how much of a model is loaded. Unpacking and starting are
// not a part of it.
func loadedFraction(p rocm.LoadProgress) float64 {
	if p.Stage != rocm.StageLoad {
		return 0
	}
	return p.Done
}

// retryNoRoom is when a client may ask again for a model whose memory other programs
// hold, retryQueue after too many have asked.
const retryNoRoom, retryQueue = 30 * time.Second, 10 * time.Second

// gatewayError returns the gateway's error for one of a pool.
func gatewayError(name string, err error) error {
	var room *scheduler.NoRoomError
	var failed *scheduler.FailedError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rocm.ErrUnknownModel):
		return gateway.ErrUnknownModel
	case errors.Is(err, rocm.ErrNoModelName):
		return gateway.ErrNoModelName
	case errors.Is(err, rocm.ErrNotLoaded):
		return gateway.ErrNotLoaded
	case errors.Is(err, rocm.ErrQueueFull):
		return &gateway.QueueFullError{Model: name, RetryAfter: retryQueue}
	case errors.As(err, &room):
		e := &gateway.NoRoomError{Model: name, Reasons: room.Reasons}
		if room.Cause != nil {
			e.Reasons = []string{room.Cause.Error()}
		}
		if room.Temporary {
			e.RetryAfter = retryNoRoom
		}
		return e
	case errors.As(err, &failed):
		return &gateway.LoadError{Model: name, Err: failed.Cause, RetryAfter: max(time.Until(failed.RetryAt), 0)}
	}
	return err
}

func gatewayStatus(s rocm.ModelStatus) gateway.ModelStatus {
	out := gateway.ModelStatus{
		Name: s.Name, Aliases: s.Aliases, Path: s.Path, Size: s.Size, State: gateway.ModelState(s.State), Progress: loadedFraction(s.Progress),
		Process: s.Process, Context: s.Context, Fits: s.Fits, Why: s.Why, Err: cmp.Or(s.Cause, s.Refusal), LoadTime: s.LoadTime, LastUse: s.LastUse,
		Running: s.Leases, Waiting: s.Waiting, Pinned: s.Pinned,
	}
	if s.Cause != nil {
		out.Cause = publicCause(s.Cause)
	}
	add := func(is bool, c gateway.Capability) {
		if is {
			out.Capabilities = append(out.Capabilities, c)
		}
	}
	generates := !s.Embeddings && !s.Reranking
	add(generates, gateway.CanComplete)
	add(generates && s.ChatTemplate, gateway.CanChat)
	add(s.Embeddings, gateway.CanEmbed)
	add(s.Reranking, gateway.CanRerank)
	add(generates && s.Vision, gateway.CanSee)
	add(generates && s.Audio, gateway.CanHear)
	return out
}

// publicCause returns what clients may read about a failure: its kind, without the
// paths and the log that the error may hold.
func publicCause(err error) string {
	for _, kind := range []error{
		supervise.ErrHostMemory, supervise.ErrOutOfMemory, supervise.ErrGPUHang, supervise.ErrGPUFault, supervise.ErrUnsupportedTarget,
		supervise.ErrModelInvalid, supervise.ErrLibraryMissing, supervise.ErrPermission, supervise.ErrNoDevice, supervise.ErrBadArgument,
		supervise.ErrStalled, supervise.ErrStartTimeout, supervise.ErrCrashLoop,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "the log of the service has the cause"
}
