package rocm

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// isBackendFailure reports whether a failure is that of a backend for GPUs, so that
// another backend may do better: the GPU hangs or faults, its code does not start, or a
// driver crashes. A request that waits while no slot computes is in no GPU's code.
func isBackendFailure(err error) bool {
	var hang *supervise.HangError
	if errors.As(err, &hang) && hang.Unanswered {
		return false
	}
	for _, kind := range []error{
		supervise.ErrGPUHang, supervise.ErrGPUFault, supervise.ErrGPUIllegalInstruction, supervise.ErrUnsupportedTarget,
		supervise.ErrNoDevice, supervise.ErrStalled, supervise.ErrLibraryMissing,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	var exit *supervise.ExitError
	return errors.As(err, &exit) && exit.Kind == nil && exit.State != supervise.Ready && isCrash(exit.Signal)
}

// isCrash reports whether a signal is that of a program that crashed by itself.
func isCrash(s syscall.Signal) bool {
	return s == syscall.SIGSEGV || s == syscall.SIGABRT || s == syscall.SIGBUS || s == syscall.SIGFPE
}

// isLasting reports whether a failure is worth remembering for later loads. A GPU that
// is not found may be busy, or lack a permission that somebody is about to give.
func isLasting(err error) bool { return !errors.Is(err, supervise.ErrNoDevice) }

// useNextBackend plans again without the backend that failed: HIP, then Vulkan, then the CPU.
// Each backend fails once, so that there are at most two steps. It returns the failure
// if the options leave no other backend.
func (l *Prepared) useNextBackend(ctx context.Context, cause, failure error) error {
	p, reason, err := nextBackend(ctx, l.machine, l.Path, l.Header, l.srv.Plan, l.srv.Plan.Request.Options, cause)
	switch {
	case err != nil:
		return errors.Join(failure, err)
	case p == nil:
		return failure
	}
	l.settings.logger().Warn(reason, "cause", failure.Error())
	if err := l.srv.waitVRAMFree(ctx); err != nil {
		l.settings.logger().Warn("the GPU's memory was not freed in time", "cause", err.Error())
	}
	l.srv.setPlan(p)
	return nil
}

// nextBackend returns the plan without the backend of a plan that failed, and the
// reason as a sentence; nil if the options leave no other backend. It remembers the
// failure.
func nextBackend(ctx context.Context, m *machine.Machine, path string, f *gguf.File, failed *plan.Plan, o plan.Options, cause error) (*plan.Plan, string, error) {
	if o.Backend != "" && o.Backend != plan.BackendAuto {
		return nil, "", nil
	}
	text := briefCause(cause)
	m.Failed(failed.Chosen, f, failed.Backend, text, isLasting(cause))
	m.Refresh()
	if err := m.ReadVulkan(ctx, f, o); err != nil {
		return nil, "", err
	}
	p, err := m.PlanFile(path, f, o)
	if err != nil || p.Backend == failed.Backend {
		return nil, "", err
	}
	reason := fmt.Sprintf("running with %s instead of %s: %s", p.Backend, failed.Backend, text)
	if p.Backend == plan.BackendCPU {
		reason = fmt.Sprintf("running on the CPU: the GPU was chosen, but llama-server's GPU code did not start on it or failed (%s)", text)
	}
	p.Reasons = append([]string{reason}, p.Reasons...)
	return p, reason, nil
}

// briefCause returns the kind of a failure, without the log.
func briefCause(err error) string {
	for _, kind := range []error{
		supervise.ErrGPUHang, supervise.ErrGPUFault, supervise.ErrGPUIllegalInstruction, supervise.ErrUnsupportedTarget,
		supervise.ErrNoDevice, supervise.ErrStalled, supervise.ErrLibraryMissing,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "llama-server crashed while it started"
}

// maxBackendFailures of one backend, in one server, make the next backend take over.
const maxBackendFailures = 3

// revision replaces the backend of a running server. One goroutine calls it, between
// two processes.
type revision struct {
	prepared *Prepared
	failures int // of the current backend
}

// revise implements supervise.RestartPolicy.Revise.
func (r *revision) revise(ctx context.Context, cause error) *supervise.Spec {
	l := r.prepared
	current := l.srv.CurrentPlan()
	if !current.GPU || !isBackendFailure(cause) {
		return nil
	}
	if r.failures++; r.failures < maxBackendFailures {
		return nil
	}
	log := l.settings.logger()
	path, f, err := machine.OpenModel(l.Path)
	if err != nil {
		log.Warn("no other backend can be planned", "cause", err.Error())
		return nil
	}
	defer func() { _ = f.Close() }()
	o := current.Request.Options
	o.Context, o.Slots = current.Context, current.Slots // which clients were told
	p, reason, err := nextBackend(ctx, l.machine, path, f, current, o, cause)
	switch {
	case err != nil:
		log.Warn("no other backend can be planned", "cause", err.Error())
		return nil
	case p == nil:
		return nil
	}
	log.Warn(reason, "failures", r.failures)
	r.failures = 0
	l.srv.current.Store(p)
	spec := l.spec()
	return &spec
}
