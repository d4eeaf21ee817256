// Package selftest tests go-rocm on the machine that it runs on, for owners of a card:
// the driver, the memory that a model uses, its answers, what happens when a request is
// cancelled and when llama-server is killed, the speed, and the backend's operations.
//
// A test is a list of steps. Each returns a [Result]: passed, failed, or not possible
// with the reason and the remedy. A step that fails does not end the test. The CPU's
// answers come first, since those of the other backends are compared with them.
//
// Nothing is sent anywhere. The models are those on disk, and the report has no personal
// data.
package selftest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// MaxTime is the longest time that a test takes.
const MaxTime = 10 * time.Minute

// Options say what is tested.
type Options struct {
	Version string // of go-rocm, for the report
	Model   string // a file, a directory with one model, or a reference
	// Settings have the bundle, the device and the backend: BackendAuto tests every
	// backend, another one that backend and, for its answers, the CPU.
	Settings rocm.Settings
	// Diagnose returns the doctor's findings about the machine.
	Diagnose func(ctx context.Context) []doctor.Finding
	// Limit is the time after which the test ends; 0: MaxTime.
	Limit time.Duration
	// Operations is the path of test-backend-ops; empty: it is searched, see
	// [FindOperations].
	Operations string
	// Progress is called each second with the step that runs and the time that is
	// left; nil: it is not called.
	Progress func(step StepName, backend plan.Backend, left time.Duration)
	// Memory is that of modelbench.Options; nil: the kernel's figures.
	Memory func(devices []gpu.Device) (hostFree, gpuFree uint64)

	// How long a slot may be in use after its request was cancelled, and the memory of
	// a model after it was unloaded; 0: the defaults.
	slotLimit, unloadLimit time.Duration
	// operationsLimit is the time for a backend's operations; 0: what is left.
	operationsLimit time.Duration
}

// ErrModel reports a model that cannot be used for the test.
var ErrModel = errors.New("the model for the test")

var (
	errLimit = errors.New("the time of the test is over")
	errStep  = errors.New("the time of the step is over")
)

// step is one part of a test.
type step struct {
	name    StepName
	backend plan.Backend
	limit   time.Duration
	weight  time.Duration // what it takes with a small model, for the time left
	run     func(ctx context.Context) Result
}

// runner runs a test.
type runner struct {
	o       Options
	log     *slog.Logger
	machine *machine.Machine
	path    string
	header  *gguf.File
	fs      gpu.FS

	report    Report
	deadline  time.Time
	reference []reference // the CPU's answers
	sessions  []*session
	sensors   *sampler
}

// Run tests, and returns the report. If ctx ends, so does the test, with a report of
// what was tested until then. The error is one of what a test needs: the model wraps
// [ErrModel].
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Limit <= 0 || o.Limit > MaxTime {
		o.Limit = MaxTime
	}
	if o.Settings.Backend == "" {
		o.Settings.Backend = plan.BackendAuto
	}
	o.slotLimit = cmp.Or(o.slotLimit, defaultSlotLimit)
	o.unloadLimit = cmp.Or(o.unloadLimit, defaultUnloadLimit)
	start := time.Now()
	r := &runner{o: o, log: o.Settings.Log, deadline: start.Add(o.Limit)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	root := o.Settings.SysRoot
	if root == "" {
		root = "/"
	}
	r.fs = gpu.NewFS(root)
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = r.header.Close() }()
	r.describe(start, root)
	ctx, cancel := context.WithDeadlineCause(ctx, r.deadline, errLimit)
	defer cancel()
	r.sensors = startSampler(r.fs, r.machine.Devices)
	r.runAll(ctx)
	for _, s := range r.sessions {
		s.close()
	}
	if cause := context.Cause(ctx); cause != nil {
		r.report.Ended = cause.Error()
	}
	r.report.finish(time.Now())
	newRedactor(root, r.machine.Devices, r.path, r.o.Model, r.o.Operations, r.o.Settings.Bundle).redact(&r.report)
	return &r.report, nil
}

// open reads the model and the machine.
func (r *runner) open(ctx context.Context) error {
	var err error
	if r.path, r.header, err = machine.OpenModel(r.o.Model); err != nil {
		return errors.Join(ErrModel, err)
	}
	s := r.o.Settings
	if r.machine, err = rocm.DetectMachine(ctx, s); err == nil {
		err = r.machine.ReadVulkan(ctx, nil, s.Options)
	}
	if err != nil {
		_ = r.header.Close()
	}
	return err
}

// describe writes what is tested into the report.
func (r *runner) describe(start time.Time, root string) {
	name := filepath.Base(r.path)
	if ref, err := modelref.Parse(r.o.Model); err == nil && ref.Remote() {
		name = ref.String()
	}
	r.report = Report{
		Format: formatVersion, Version: r.o.Version, Started: start.UTC().Truncate(time.Second), Backend: r.o.Settings.Backend, Kernel: kernelRelease(root),
		Model: Model{Name: name, Architecture: r.header.Architecture(), Quantisation: r.header.Quantisation(), Bytes: r.header.Size()},
		Cards: []Card{}, Checks: []doctor.Finding{},
	}
	if b, err := locate.Find(r.o.Settings.Bundle); err == nil {
		if m := b.Manifest; m != nil {
			r.report.Bundle = Bundle{m.Name, m.Version, m.Digest()}
		}
		_ = b.Close()
	}
}

func kernelRelease(root string) string {
	raw, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/osrelease"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// runAll runs all steps.
func (r *runner) runAll(ctx context.Context) {
	steps := r.steps()
	p := startProgress(r.o.Progress, steps, r.deadline)
	defer p.stop()
	for _, s := range steps {
		p.begin(s)
		r.add(s, r.runStep(ctx, s))
		p.end(s)
	}
	s := step{name: StepSensors}
	r.add(s, r.sensors.result())
}

func (r *runner) add(s step, res Result) {
	res.Step, res.Backend = s.name, s.backend
	r.report.Results = append(r.report.Results, res)
}

// remedyOf returns the remedy for a test that ended early.
func remedyOf(cause error) string {
	if errors.Is(cause, errLimit) {
		return "repeat the test with a smaller model, or with --backend"
	}
	return "repeat the test"
}

// runStep runs one step, unless the test has ended.
func (r *runner) runStep(ctx context.Context, s step) Result {
	if cause := context.Cause(ctx); cause != nil {
		return notPossible(remedyOf(cause), "not tested: %v", cause)
	}
	limited, cancel := context.WithTimeoutCause(ctx, s.limit, errStep)
	defer cancel()
	start := time.Now()
	res := s.run(limited)
	switch {
	case res.Outcome != Failed:
	case ctx.Err() != nil: // the step was cut off, and did not fail by itself
		res = notPossible(remedyOf(context.Cause(ctx)), "not tested to its end: %v", context.Cause(ctx))
	case limited.Err() != nil:
		res.Detail = "it took longer than " + s.limit.String() + ": " + res.Detail
	}
	res.Seconds = seconds(time.Since(start))
	return res
}

// steps returns the steps of the test.
func (r *runner) steps() []step {
	out := []step{
		{StepMachine, "", 2 * time.Minute, 3 * time.Second, r.checkMachine},
		{StepCards, "", 10 * time.Second, time.Second, r.checkCards},
	}
	chosen := []plan.Backend{plan.BackendCPU, plan.BackendHIP, plan.BackendVulkan}
	if b := r.o.Settings.Backend; b != plan.BackendAuto {
		chosen = []plan.Backend{b}
	}
	if chosen[0] != plan.BackendCPU {
		s := r.newSession(plan.BackendCPU, nil)
		out = append(out, s.step(StepLoad), s.step(StepAnswers), s.step(StepUnload))
	}
	var usable []*session
	for _, b := range chosen {
		p, err := r.plan(b)
		if err != nil {
			out = append(out, step{StepBackend, b, time.Minute, 0, func(context.Context) Result { return unusable(err) }})
			continue
		}
		s := r.newSession(b, p)
		usable = append(usable, s)
		for _, name := range []StepName{StepLoad, StepMemory, StepAnswers, StepCancel, StepKill, StepUnload} {
			out = append(out, s.step(name))
		}
	}
	for i := range usable { // the CPU, which may be slow, comes last
		out = append(out, usable[len(usable)-1-i].step(StepSpeed))
	}
	for _, s := range usable {
		if s.backend != plan.BackendCPU {
			out = append(out, s.step(StepOperations))
		}
	}
	return out
}

// unusable returns the result for a backend that cannot be used.
func unusable(err error) Result {
	return notPossible(`see "go-rocm doctor" for what the backend needs`, "nothing of it was tested: %v", err)
}

// settings returns the settings with which a backend is tested.
func (r *runner) settings(b plan.Backend) rocm.Settings {
	s := r.o.Settings
	s.Backend, s.Slots, s.Log = b, 1, r.log
	s.Context = testContext
	if b == plan.BackendCPU {
		s.Devices = plan.Devices{}
	}
	return s
}

// plan returns the plan of the model with a backend.
func (r *runner) plan(b plan.Backend) (*plan.Plan, error) {
	return r.machine.PlanFile(r.path, r.header, r.settings(b).Options)
}
