package selftest

import (
	"fmt"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// Outcome is how a step ended.
type Outcome string

// The outcomes. A step that is not possible has tested nothing: what it needs is
// missing, or the test ended before it.
const (
	Passed      Outcome = "passed"
	Failed      Outcome = "failed"
	NotPossible Outcome = "not possible"
)

// Verdict is the result of the whole test.
type Verdict string

// The verdicts. Incomplete means that nothing failed, and that what the caller asked
// for was not tested: there is no card, or the test ended early.
const (
	AllPassed  Verdict = "passed"
	SomeFailed Verdict = "failed"
	Incomplete Verdict = "incomplete"
)

// StepName is the name of a step.
type StepName string

// The steps, in their order.
const (
	StepMachine    StepName = "machine"
	StepCards      StepName = "cards"
	StepBackend    StepName = "backend" // of a backend that cannot be used
	StepLoad       StepName = "load"
	StepMemory     StepName = "memory"
	StepAnswers    StepName = "answers"
	StepCancel     StepName = "cancel"
	StepKill       StepName = "kill"
	StepUnload     StepName = "unload"
	StepSpeed      StepName = "speed"
	StepOperations StepName = "operations"
	StepSensors    StepName = "sensors"
)

// formatVersion is Report.Format of this version. Fields are only added.
const formatVersion = 1

// Report is the result of a test. It has no personal data: [Run] removes the names of
// the user and of the machine, directories, and the serial numbers of cards.
type Report struct {
	Format     int              `json:"format"`
	Version    string           `json:"version"` // of go-rocm
	Started    time.Time        `json:"started"`
	Seconds    float64          `json:"seconds"`
	Verdict    Verdict          `json:"verdict"`
	CardTested bool             `json:"card_tested"`      // a model answered on a real card
	Ended      string           `json:"ended,omitempty"`  // why the test ended early
	Backend    plan.Backend     `json:"backend"`          // that was asked for
	Kernel     string           `json:"kernel,omitempty"` // release
	Model      Model            `json:"model"`
	Bundle     Bundle           `json:"bundle"`
	Cards      []Card           `json:"cards"`
	Checks     []doctor.Finding `json:"checks"`
	Results    []Result         `json:"results"`
}

// Model describes the model of a test.
type Model struct {
	Name         string `json:"name"` // the reference, or the name of the file
	Architecture string `json:"architecture"`
	Quantisation string `json:"quantisation"`
	Bytes        int64  `json:"bytes"`
}

// Bundle describes the bundle of a test.
type Bundle struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"`
}

// Card describes a GPU.
type Card struct {
	Name       string `json:"name"`
	PCI        string `json:"pci,omitempty"`
	Target     string `json:"target,omitempty"`
	IDs        string `json:"ids,omitempty"` // vendor, device and revision
	Bytes      uint64 `json:"bytes"`         // memory
	Integrated bool   `json:"integrated,omitempty"`
	Software   bool   `json:"software,omitempty"` // a driver that computes on the CPU
	Vulkan     string `json:"vulkan,omitempty"`   // what Vulkan calls it
	Unusable   string `json:"unusable,omitempty"` // why HIP cannot use it
}

// Result is the result of a step.
type Result struct {
	Step    StepName     `json:"step"`
	Backend plan.Backend `json:"backend,omitempty"`
	Outcome Outcome      `json:"outcome"`
	Detail  string       `json:"detail"`
	Remedy  string       `json:"remedy,omitempty"` // set unless the step passed
	Seconds float64      `json:"seconds"`

	Memory  *Memory  `json:"memory,omitempty"`
	Answers *Answers `json:"answers,omitempty"`
	// Wait is the time in seconds until the slot was free, the server answered again,
	// or the memory was free.
	Wait       float64       `json:"wait_seconds,omitempty"`
	Speed      *speed.Depth  `json:"speed,omitempty"`
	Operations *Operations   `json:"operations,omitempty"`
	Sensors    []CardSensors `json:"sensors,omitempty"`
}

func passed(format string, args ...any) Result {
	return Result{Outcome: Passed, Detail: fmt.Sprintf(format, args...)}
}

func failed(remedy, format string, args ...any) Result {
	return Result{Outcome: Failed, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func notPossible(remedy, format string, args ...any) Result {
	return Result{Outcome: NotPossible, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Count returns how many steps had an outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, res := range r.Results {
		if res.Outcome == o {
			n++
		}
	}
	return n
}

// finish sets the verdict and the duration.
func (r *Report) finish(now time.Time) {
	r.Seconds = seconds(now.Sub(r.Started))
	answered := false // on the backend that was asked for
	for _, res := range r.Results {
		answered = answered || res.Step == StepAnswers && res.Outcome == Passed && res.Backend == r.Backend
	}
	wantsCard := r.Backend == plan.BackendAuto || r.Backend == plan.BackendHIP
	switch {
	case r.Count(Failed) > 0:
		r.Verdict = SomeFailed
	case r.Ended != "", wantsCard && !r.CardTested, r.Backend != plan.BackendAuto && !answered:
		r.Verdict = Incomplete
	default:
		r.Verdict = AllPassed
	}
}

// seconds returns a duration in seconds, to milliseconds. What took less took one: a report
// leaves out what is zero.
func seconds(d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return max(d.Round(time.Millisecond), time.Millisecond).Seconds()
}
