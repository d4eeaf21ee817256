//go:build linux && amd64

package rocm_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// Prepare finds what Launch would reject, and names each setting.
func TestPrepareNamesTheSettings(t *testing.T) {
	b := fakebundle.New(t, fakellama.Script{})
	for want, change := range map[string]func(s *rocm.Settings, path *string){
		"Model":                      func(_ *rocm.Settings, path *string) { *path += ".absent" },
		"Bundle":                     func(s *rocm.Settings, _ *string) { s.Bundle = "absent" },
		"Context, Cache.KeyType":     func(s *rocm.Settings, _ *string) { s.Context, s.Cache.KeyType = -1, "q9" },
		"Adapters, Projector, Draft": func(s *rocm.Settings, _ *string) { s.Adapters, s.Projector, s.Draft = []string{"a"}, "a", "a" },
		"ChatTemplateFile, SlotDir":  func(s *rocm.Settings, _ *string) { s.ChatTemplateFile, s.SlotDir = "a", "a" },
		"Model, Slots, Adapters, Pooling, Args": func(s *rocm.Settings, path *string) {
			*path, s.Slots, s.Adapters, s.Pooling, s.Args = "absent", -1, []string{"a"}, "x", []string{"--no-such-flag"}
		},
		"Bundle, Slots, Draft":             func(s *rocm.Settings, _ *string) { s.Bundle, s.Slots, s.Draft = "absent", -1, "a" },
		"Context, Args":                    func(s *rocm.Settings, _ *string) { s.Context, s.Args = -1, []string{"--ctx-size", "many"} },
		"Alias, Timeouts.Start":            func(s *rocm.Settings, _ *string) { s.Alias, s.Timeouts.Start = "a\nb", math.MaxInt64 },
		"Timeouts.Stall, Timeouts.Drain":   func(s *rocm.Settings, _ *string) { s.Timeouts.Stall, s.Timeouts.Drain = math.MaxInt64, math.MaxInt64 },
		"Devices.ID":                       func(s *rocm.Settings, _ *string) { s.Devices.ID, s.SysRoot = "0000:99:00.0", t.TempDir() },
		"Draft, SlotDir, Slots, TCP":       func(s *rocm.Settings, _ *string) { s.Draft, s.SlotDir, s.Slots, s.TCP = "a", "a", -1, "a" },
		"Pooling, Timeouts.Stop":           func(s *rocm.Settings, _ *string) { s.Pooling, s.Timeouts.Stop = "x", -1 },
		"Args":                             func(s *rocm.Settings, _ *string) { s.Args = []string{"--ctx-size", "many"} },
		"Devices.Required":                 func(s *rocm.Settings, _ *string) { s.Devices.Required, s.SysRoot = true, t.TempDir() },
		"Layers":                           func(s *rocm.Settings, _ *string) { s.Layers, s.SysRoot = 1, t.TempDir() },
		"Slots, Batch, Devices.Count":      func(s *rocm.Settings, _ *string) { s.Slots, s.Batch, s.Devices.Count = -1, -1, -1 },
		"Cache.ValueType, Cache.HostLimit": func(s *rocm.Settings, _ *string) { s.Cache.ValueType, s.Cache.HostLimit = "q9", math.MaxInt64 },
	} {
		s := rocm.Settings{Bundle: b.Dir}
		path := b.Model
		change(&s, &path)
		p, err := rocm.Prepare(t.Context(), path, s)
		if p != nil {
			_ = p.Close()
		}
		for option := range strings.SplitSeq(want, ", ") {
			if !slices.ContainsFunc(options(err), func(e *plan.OptionError) bool { return e.Option == option }) {
				t.Errorf("%v; want an error about %s", err, option)
			}
		}
	}
	p, err := rocm.Prepare(t.Context(), b.Model, rocm.Settings{Bundle: b.Dir, Args: []string{"--threads", "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Path != b.Model || p.Header.Architecture() != "llama" {
		t.Errorf("prepared %+v", p)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// options returns the errors in err that are about one option.
func options(err error) []*plan.OptionError {
	if e, ok := err.(*plan.OptionError); ok { //nolint:errorlint // every error of the tree is visited
		return []*plan.OptionError{e}
	}
	switch e := err.(type) { //nolint:errorlint // the same
	case interface{ Unwrap() []error }:
		var out []*plan.OptionError
		for _, err := range e.Unwrap() {
			out = append(out, options(err)...)
		}
		return out
	case interface{ Unwrap() error }:
		return options(e.Unwrap())
	}
	return nil
}
