package rocm

import (
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

func TestThreadEnv(t *testing.T) {
	short := []string{"GOMP_SPINCOUNT=20000"}
	for name, tt := range map[string]struct {
		environ []string
		cpus    host.CPUs
		want    []string
	}{
		"whole machine":    {nil, host.CPUs{Cores: 8, Allowed: 8}, short},
		"unknown":          {nil, host.CPUs{}, short},
		"quota":            {nil, host.CPUs{Cores: 64, Allowed: 64, Quota: 2}, append(slices.Clip(short), "LLAMA_ARG_THREADS=2")},
		"the user's own":   {[]string{"GOMP_SPINCOUNT=1000"}, host.CPUs{Cores: 8, Allowed: 4}, []string{"LLAMA_ARG_THREADS=4"}},
		"another variable": {[]string{"OMP_WAIT_POLICY_X=1"}, host.CPUs{}, short},
	} {
		if got := threadEnv(tt.environ, tt.cpus); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
