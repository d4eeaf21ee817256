//go:build linux && amd64

package rocm_test

import (
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// The child's OpenMP threads sleep while they wait, unless the user chose otherwise.
func TestChildThreadsDoNotSpin(t *testing.T) {
	if env := load(t, fakellama.Script{}).Server().Child.Diagnose().Env; !slices.Contains(env, "GOMP_SPINCOUNT=20000") {
		t.Errorf("the child's environment: %q", env)
	}
	t.Setenv("GOMP_SPINCOUNT", "1000")
	if env := load(t, fakellama.Script{}).Server().Child.Diagnose().Env; slices.Contains(env, "GOMP_SPINCOUNT=20000") || !slices.Contains(env, "GOMP_SPINCOUNT=1000") {
		t.Errorf("with the user's own: %q", env)
	}
}
