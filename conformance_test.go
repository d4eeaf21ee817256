//go:build linux && amd64

package rocm_test

import (
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// TestConformance puts the backend and a child process that imitates
// llama-server through every promise of the contract. The same suite runs on
// the real server in testing/e2e.
func TestConformance(t *testing.T) {
	for name, script := range map[string]fakellama.Script{
		"one slot":                   {},
		"four slots":                 {Slots: 4},
		"pings and carriage returns": {Slots: 2, PingEvery: 1, CRLF: true},
		"single bytes":               {Slots: 2, Faults: []fakellama.Fault{{Kind: fakellama.KindTrickle}}},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, conformance.Subject{
				// A Close that waits for who reads would not be back before the check is over.
				Backend: &rocm.Backend{Defaults: rocm.Settings{Timeouts: rocm.Timeouts{Drain: time.Hour}}}, Model: fakebundle.Use(t, script),
				Logits: true, Chat: true, Steady: true, TooLong: strings.Repeat("word ", 2000),
			})
		})
	}
}
