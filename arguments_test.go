//go:build linux && amd64

package rocm_test

import (
	"errors"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// What a user says to llama-server is never passed over.
func TestUnknownArguments(t *testing.T) {
	path := fakebundle.Use(t, fakellama.Script{})
	s := rocm.Settings{}
	s.Args = []string{"--threads", "1", "--no-such-flag", "7", "--ctx-sise=5"}
	m, err := (&rocm.Backend{}).Load(t.Context(), path, s)
	if m != nil {
		_ = m.Close()
	}
	if !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "--no-such-flag, --ctx-sise") {
		t.Errorf("got %v, want an ErrOption that names both", err)
	}
}
