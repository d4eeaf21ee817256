package backendops

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// SoftwareEnv returns the environment in which the only device is that of a Vulkan driver that computes
// on the CPU, with the driver's manifest.
func SoftwareEnv(manifest string) []string {
	return append(gpu.VulkanEnv([]gpu.Device{{Vulkan: &gpu.Vulkan{Software: true}}}), "VK_DRIVER_FILES="+manifest,
		// The CPU's threads share the processors with the driver's. No debugger is started after a crash.
		"OMP_WAIT_POLICY=passive", "GGML_NO_BACKTRACE=1")
}

// EmulatedEnv returns the environment for the HIP module on an emulated card, with the variables of that card.
func EmulatedEnv(card ...string) []string {
	return append(append(gpu.NoVulkanEnv(), "OMP_WAIT_POLICY=passive", "GGML_NO_BACKTRACE=1"), card...)
}

// Work estimates how much a case computes: the product of its sizes. It is more than the number of elements of its
// largest tensor.
func Work(c Case) float64 {
	work := 1.0
	for _, p := range params(c) {
		if p.name == "hsv" || p.name == "seed" { // the head size is counted already
			continue
		}
		for text := range strings.FieldsFuncSeq(p.value, func(r rune) bool { return strings.ContainsRune("[], ", r) }) {
			if n, err := strconv.ParseUint(text, 10, 62); err == nil && n > 1 {
				work *= float64(n)
			}
		}
	}
	return work
}

// Variety returns the smallest case of each kind, and the others, the small ones first. A device that is too slow for all
// cases runs them in this order.
func Variety(cases []Case) (first, rest []Case) {
	seen := map[string]bool{}
	for _, c := range slices.SortedStableFunc(slices.Values(cases), func(a, b Case) int { return cmp.Compare(Work(a), Work(b)) }) {
		if seen[kind(c)] {
			rest = append(rest, c)
			continue
		}
		seen[kind(c)] = true
		first = append(first, c)
	}
	return first, rest
}

// mostVectors is the number of vectors up to which backends multiply a matrix by one vector after the other.
const mostVectors = 8

// kind returns the operation and the types of a case, and for products of matrices and attention whether there are one,
// some or many vectors: backends have other kernels for each.
func kind(c Case) string {
	name := c.Operation + " " + strings.Join(types(c), " ")
	if !strings.HasPrefix(c.Operation, "MUL_MAT") && c.Operation != "FLASH_ATTN_EXT" {
		return name
	}
	for _, p := range params(c) {
		n, err := strconv.ParseUint(p.value, 10, 62)
		switch {
		case err != nil || p.name != "n" && p.name != "nb":
		case n > mostVectors:
			return name + " many"
		case n > 1:
			return name + " some"
		}
	}
	return name
}

// Sample returns cases for a device that has time for few: the smallest one of each operation, and a part of the smallest
// ones of each kind. Each of these is in one of the parts at least; the parts have the numbers from 0. Cases with more work
// than most are left out. The order is that of cases.
func Sample(cases []Case, part, parts int, most float64) []Case {
	first, _ := Variety(slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return Work(c) > most }))
	seen, chosen := map[string]bool{}, map[Case]bool{}
	for n, c := range first {
		if !seen[c.Operation] || n%parts == part {
			chosen[c] = true
		}
		seen[c.Operation] = true
	}
	return slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return !chosen[c] })
}

// Smallest returns the case of each operation that has the least work, unless that is more than most. The order is that of
// cases.
func Smallest(cases []Case, most float64) []Case {
	smallest := map[string]Case{}
	for _, c := range cases {
		if best, ok := smallest[c.Operation]; Work(c) <= most && (!ok || Work(c) < Work(best)) {
			smallest[c.Operation] = c
		}
	}
	return slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return smallest[c.Operation] != c })
}

// FusedOperations are the operations of whose cases test-backend-ops compares whole graphs.
var FusedOperations = []string{
	"ROPE_SET_ROWS", "RMS_NORM_MUL_ROPE", "SOFTCAP", "NORM_MUL_ADD", "RMS_NORM_SCALE", "NORM_SCALE", "RMS_NORM_MUL_ADD",
	"ADD_ADD", "ADD_RMS_NORM", "RELU_SQR", "GELU_MUL", "SILU_MUL", "SIGMOID_MUL", "SOFTPLUS_MUL", "SNAKE_FUSE",
	"DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST", "SSM_CONV_BIAS_SILU", "SSM_SCAN_ROLLBACK", "GATED_DELTA_NET_CACHE_FUSION",
	"MUL_MAT_HADAMARD", "MUL_MAT_ID_FUSION", "TOPK_QSA", "TOPK_MOE", "MOE_REDUCE", "MUL_MAT_VEC_FUSION", "GROUP_NORM_MUL_ADD",
	"L2_NORM_BATCH",
}

// Unit is what one process runs: listed cases, or fused operations, separated by commas.
type Unit struct {
	Cases             []Case
	Operation, Params string // of fused cases
}

// perUnit limits the cases of a unit. Shaders are compiled once in a process; what was interrupted is
// lost from the case on that was running.
const perUnit = 200

// Units returns the units of listed cases, in which the cases of an operation are together.
func Units(cases []Case) []Unit {
	var units []Unit
	for i, c := range cases {
		last := len(units) - 1
		if i == 0 || c.Operation != cases[i-1].Operation && len(units[last].Cases) >= perUnit/4 || len(units[last].Cases) == perUnit {
			units = append(units, Unit{})
			last++
		}
		units[last].Cases = append(units[last].Cases, c)
	}
	return units
}

// RunUnits runs units in several processes at a time. It calls report with each result, and done, which
// may be nil, with each unit that is complete; neither is called twice at a time.
func (p Program) RunUnits(ctx context.Context, processes int, units []Unit, report func(Result) error, done func(Unit) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	locked := func(r Result) error {
		mu.Lock()
		defer mu.Unlock()
		return report(r)
	}
	queue := make(chan Unit, len(units))
	for _, u := range units {
		queue <- u
	}
	close(queue)
	errs := make([]error, processes)
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			for u := range queue {
				if errs[i] = p.runUnit(ctx, u, locked); errs[i] != nil {
					cancel()
					return
				}
				if done == nil {
					continue
				}
				mu.Lock()
				errs[i] = done(u)
				mu.Unlock()
				if errs[i] != nil {
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	var first error
	for _, err := range errs {
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	return first
}

func (p Program) runUnit(ctx context.Context, u Unit, report func(Result) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.Operation != "" {
		return p.RunOperation(ctx, u.Operation, u.Params, report)
	}
	return p.Run(ctx, u.Cases, report)
}
