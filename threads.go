package rocm

import (
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

// threadEnv returns the variables that make llama-server share the processors.
//
// ggml's CPU code is built with OpenMP, whose threads spin at every barrier for
// milliseconds. As soon as another program uses a processor, each barrier waits until
// the thread that was preempted runs again while the others spin: beside a compile on
// two processors, a model of 135M parameters generated one token a second. With this
// variable of GNU's OpenMP a thread spins for a fraction of a millisecond and then
// sleeps. Without any spinning, each barrier wakes threads, and on quiet processors the
// model generates 0.4 as fast (mage bench, row cpu).
//
// llama-server starts a thread for each physical core, whatever the affinity mask and
// the quota of its control group (common_cpu_get_num_physical_cores in
// common/common.cpp), so the number of threads is set where one of them is lower.
// Arguments take precedence over that variable. Variables that the user has set are
// left alone.
func threadEnv(environ []string, cpus host.CPUs) []string {
	var out []string
	tuned := false
	for _, e := range environ {
		tuned = tuned || strings.HasPrefix(e, "OMP_WAIT_POLICY=") || strings.HasPrefix(e, "GOMP_SPINCOUNT=")
	}
	if !tuned {
		out = append(out, "GOMP_SPINCOUNT=20000")
	}
	if n := cpus.Threads(); n > 0 {
		out = append(out, "LLAMA_ARG_THREADS="+strconv.Itoa(n))
	}
	return out
}
