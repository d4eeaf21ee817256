package speed

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// Key is what a record holds for.
type Key struct {
	Card         string `json:"card"`   // see CardName
	Driver       string `json:"driver"` // digest of the Vulkan drivers, empty if none was looked for
	Kernel       string `json:"kernel"` // release
	Bundle       string `json:"bundle"` // digest of the manifest
	Architecture string `json:"architecture"`
	Quantisation string `json:"quantisation"`
}

// CardName returns the name of a device in a Key: its PCI ids, or what Vulkan calls it.
func CardName(d gpu.Device) string {
	if d.DeviceID == 0 && d.Vulkan != nil {
		return d.Vulkan.Description
	}
	return fmt.Sprintf("%04x:%04x:%02x %s", d.Vendor, d.DeviceID, d.Revision, d.Target)
}

// fileName returns the name of the record's file.
func (k Key) fileName() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q", k.Card, k.Driver, k.Kernel, k.Bundle, k.Architecture, k.Quantisation))
	return "speed-" + hex.EncodeToString(sum[:12]) + ".json"
}

// Settings are how llama-server ran.
type Settings struct {
	Backend        string `json:"backend"`            // "hip", "vulkan", "cpu"
	FlashAttention bool   `json:"flash_attention"`    //
	Batch          int    `json:"batch"`              // --ubatch-size
	Override       string `json:"override,omitempty"` // of the target, such as "11.0.0"
	// HIPBLASLt is set for a run with hipBLASLt's kernels instead of rocBLAS's own.
	HIPBLASLt bool `json:"hipblaslt,omitempty"`
}

// String describes the settings in a few words.
func (s Settings) String() string {
	out := s.Backend
	if s.Override != "" {
		out += ", code of " + s.Override
	}
	if s.HIPBLASLt {
		out += ", hipBLASLt"
	}
	if !s.FlashAttention {
		out += ", no flash attention"
	}
	return fmt.Sprintf("%s, batch %d", out, s.Batch)
}

// Sample is the mean of several measurements in tokens per second, and their standard
// deviation.
type Sample struct {
	Mean      float64 `json:"mean"`
	Deviation float64 `json:"deviation"`
	Count     int     `json:"count"`
}

// NewSample returns the sample of some measurements.
func NewSample(values []float64) Sample {
	s := Sample{Count: len(values)}
	if s.Count == 0 {
		return s
	}
	for _, v := range values {
		s.Mean += v / float64(s.Count)
	}
	if s.Count < 2 {
		return s
	}
	for _, v := range values {
		s.Deviation += (v - s.Mean) * (v - s.Mean) / float64(s.Count-1)
	}
	s.Deviation = math.Sqrt(s.Deviation)
	return s
}

// Depth is the speed with a number of tokens in the cache.
type Depth struct {
	Tokens     int    `json:"tokens"`
	Prompt     Sample `json:"prompt"`     // tokens of a prompt per second
	Generation Sample `json:"generation"` // generated tokens per second
}

// Run is what was measured with some settings. Error is why nothing was, empty
// otherwise.
type Run struct {
	Settings
	Depths []Depth `json:"depths,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Failure is a backend that failed while it ran a model.
type Failure struct {
	Backend string    `json:"backend"`
	Cause   string    `json:"cause"`
	Time    time.Time `json:"time"`
}

// Record is what is known about a Key.
type Record struct {
	Key
	Time     time.Time `json:"time"` // of the measurement; zero without one
	Runs     []Run     `json:"runs,omitempty"`
	Failures []Failure `json:"failures,omitempty"`
}

// failureAge is how long a failure is remembered. A driver may fail for reasons that
// pass, such as heat, and no measurement would ever be made.
const failureAge = 30 * 24 * time.Hour

// The request by whose time backends are compared: a prompt and an answer of lengths
// that are common in a chat with some documents.
const (
	typicalPrompt = 2048
	typicalAnswer = 512
)

// seconds returns the time of the typical request, averaged over the depths; ok is
// false if the run measured nothing.
func (r Run) seconds() (s float64, ok bool) {
	if r.Error != "" || len(r.Depths) == 0 {
		return 0, false
	}
	for _, d := range r.Depths {
		if d.Prompt.Mean <= 0 || d.Generation.Mean <= 0 {
			return 0, false
		}
		s += (typicalPrompt/d.Prompt.Mean + typicalAnswer/d.Generation.Mean) / float64(len(r.Depths))
	}
	return s, true
}

// Fastest returns the fastest run with the default settings of each backend that was
// measured, fastest first: a prompt of 2048 tokens and an answer of 512 take the least
// time. Runs with an override are no default.
func (r Record) Fastest() []Run {
	best := map[string]Run{}
	for _, run := range r.Runs {
		s, ok := run.seconds()
		if !ok || run.Override != "" || !run.FlashAttention || run.Batch != DefaultBatch {
			continue
		}
		old, seen := best[run.Backend]
		if was, _ := old.seconds(); !seen || s < was {
			best[run.Backend] = run
		}
	}
	var out []Run
	for _, run := range best {
		out = append(out, run)
	}
	slices.SortFunc(out, func(a, b Run) int {
		sa, _ := a.seconds()
		sb, _ := b.seconds()
		switch {
		case sa < sb:
			return -1
		case sa > sb:
			return 1
		}
		return 0
	})
	return out
}

// DefaultBatch is llama-server's default for --ubatch-size.
const DefaultBatch = 512

// Describe returns the result of a measurement in a sentence; empty without one.
func (r Record) Describe() string {
	fastest := r.Fastest()
	if len(fastest) == 0 {
		return ""
	}
	out := "measured on " + r.Time.UTC().Format(time.DateOnly) + ": "
	for i, run := range fastest {
		if i > 0 {
			out += "; "
		}
		d := run.Depths[len(run.Depths)-1]
		out += fmt.Sprintf("%s generates %.1f and reads %.0f tokens/s at depth %d", run.Backend, d.Generation.Mean, d.Prompt.Mean, d.Tokens)
	}
	return out
}

// Failed returns the failures that still count, by backend.
func (r Record) Failed(now time.Time) map[string]string {
	out := map[string]string{}
	for _, f := range r.Failures {
		if now.Sub(f.Time) < failureAge {
			out[f.Backend] = fmt.Sprintf("%s on %s", f.Cause, f.Time.UTC().Format(time.DateOnly))
		}
	}
	return out
}
