//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/backendops"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// operations returns test-backend-ops with the libraries and the modules of the rig. Variables are added to its
// environment.
func (r *rig) operations(t *testing.T, variables ...string) backendops.Program {
	t.Helper()
	argv := r.Command()
	argv[len(argv)-1] = backendOps(t)
	return backendops.Program{
		Argv: argv, Dir: r.Dir, Device: "ROCm0", CaseLimit: 5 * time.Minute,
		Env: backendops.EmulatedEnv(append(variables, hsa.EnvCards+"="+r.cards)...),
	}
}

// mostWork limits the listed cases, and mostWorkOfAKind those that are not the smallest one of their operation.
const mostWork, mostWorkOfAKind = 1e7, 1e6

// fusedCases matches the parameters of the smallest cases of each fused operation.
var fusedCases = "^(" + strings.Join([]string{
	// RELU_SQR, and the products with GELU, SILU, SIGMOID and SOFTPLUS
	`type=f(16|32),ne=\[128,2,2,2\](,swap=0,layout=packed,tail=)?$`,
	// SOFTCAP, ADD_RMS_NORM, and what follows a norm
	`type=f32,ne=\[(10,10,10,10|64,5,4,3)\],(softcap=|(n_norms=2,)?eps=0\.000001)`,
	// ADD_ADD
	`type=f(16|32),type_addend=f32,ne=\[64,5,4,3\],`,
	// SNAKE_FUSE
	`type=(f16|f32|bf16),ne=\[5,7,1,1\]$`,
	// ROPE_SET_ROWS
	`type=f(16|32),type_idx=i64,ne_a=\[128,32,1,1\],`,
	// RMS_NORM_MUL_ROPE
	`ne=\[256,1,1,1\],eps=`,
	// DSV4_HC_COMB, DSV4_HC_PRE, DSV4_HC_POST
	`n_tokens=1,n_iter=|n_embd=1,`,
	// SSM_CONV_BIAS_SILU, SSM_SCAN_ROLLBACK
	`type=f32,ne_a=\[3,1024,1,1\],|type=f32,d_state=`,
	// GATED_DELTA_NET_CACHE_FUSION
	`type=f32,head_count=4,head_size=32,n_seq_tokens=2,`,
	// MUL_MAT_HADAMARD, MUL_MAT_ID_FUSION
	`type_a=f32,type_b=f32,m=64,n=1,k=64,|type_a=f16,type_b=f32,n_mats=16,`,
	// TOPK_QSA, TOPK_MOE, MOE_REDUCE
	`n_blocks=64,|ne=\[8,22,1,1\],|n_embd=63,n_expert_used=2,`,
	// MUL_MAT_VEC_FUSION
	`type=(f16|q4_0|q8_0|q4_K|mxfp4),glu_op=[^,]*,m=1,n=32,k=256,use_id=0,`,
	// GROUP_NORM_MUL_ADD
	`type=f32,ne=\[9,9,1280,1\],num_groups=`,
}, "|") + ")"

// alikeTypes matches the types of weights that CI leaves out: another one of the family stands for them. CI has Q4_0 and
// Q8_0, of the K types Q4_K and Q6_K, of those with a table IQ3_S and IQ4_NL, TQ1_0, and MXFP4.
var alikeTypes = regexp.MustCompile(`=(q1_0|q2_0|q4_1|q5_0|q5_1|q2_K|q3_K|q5_K|iq1_s|iq1_m|iq2_xxs|iq2_xs|iq2_s|iq3_xxs|iq4_xs|nvfp4|tq2_0)\b`)

// onBothCards reports whether CI computes an operation on both targets: those of language models, and the one that
// always runs a solution of Tensile.
func onBothCards(operation string) bool {
	return operation == "OUT_PROD" || slices.Contains(usedByModels, operation)
}

// chooseForCard returns the cases for one card of several, which has the number part.
func chooseForCard(listed []backendops.Case, part, parts int) []backendops.Case {
	short := cases.Of(true, true, false)
	kinds := slices.Clone(listed)
	if short {
		kinds = slices.DeleteFunc(kinds, func(c backendops.Case) bool { return alikeTypes.MatchString(c.Params) || !onBothCards(c.Operation) })
	}
	chosen := map[backendops.Case]bool{}
	for _, c := range backendops.Sample(kinds, part, parts, mostWorkOfAKind) {
		chosen[c] = true
	}
	for n, c := range backendops.Smallest(listed, mostWork) {
		if !short || onBothCards(c.Operation) || n%parts == part {
			chosen[c] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(listed), func(c backendops.Case) bool { return !chosen[c] })
}

// TestEmulatedOperations computes operations of the shipped HIP module on a card of each target, by llama.cpp's own test,
// which compares them with the CPU's within its own tolerance: the smallest case of each operation, and on one of the cards
// that of each kind and the smallest cases of each fused operation. In CI an operation that language models do not use is
// computed on one of the cards, and there is one type of weights of each family. `mage emulate` computes the others.
func TestEmulatedOperations(t *testing.T) {
	executed := map[string]bool{} // the families of kernels, on either card
	targets := []string{"gfx1100", "gfx1101"}
	for part, target := range targets {
		t.Run(target, func(t *testing.T) {
			r := newRig(t, target)
			var fused []string
			for n, name := range backendops.FusedOperations {
				if n%len(targets) == part {
					fused = append(fused, name)
				}
			}
			short := backendops.Short{
				Processes: 2,
				Choose:    func(listed []backendops.Case) []backendops.Case { return chooseForCard(listed, part, len(targets)) },
				Fused:     []backendops.Unit{{Operation: strings.Join(fused, ","), Params: fusedCases}},
				Required:  append(fused, usedByModels...),
			}
			coverage := filepath.Join(t.TempDir(), "coverage")
			shortOperations(t, r.operations(t, hsa.EnvCoverage+"="+beside(hsa.EnvCoverage, coverage)), short)
			addFamilies(t, r, coverage, executed)
		})
	}
	for _, name := range []string{"mul_mat_q", "mul_mat_vec_q", "mul_mat_vec_f", "flash_attn_ext_vec", "k_get_rows", "k_set_rows", "k_bin_bcast"} {
		if !executed[name] {
			t.Errorf("no kernel of the family %s was executed", name)
		}
	}
}

// addFamilies adds the families of the kernels that were executed on the rig's card. A solution of Tensile must be among
// them.
func addFamilies(t *testing.T, r *rig, coverage string, families map[string]bool) {
	t.Helper()
	executed, err := survey.ReadExecuted(coverage)
	if err != nil {
		t.Fatal(err)
	}
	c, err := survey.Cover([]string{r.Dir}, executed)
	if err != nil {
		t.Fatal(err)
	}
	target, tensile := gfx.Target(r.cards), 0
	for _, f := range c.Families {
		if f.Executed[target] == 0 {
			continue
		}
		name, _, _ := strings.Cut(f.Name, " ")
		families[name] = true
		if f.Part == survey.PartTensile {
			tensile++
		}
	}
	if tensile == 0 {
		t.Error("no solution of Tensile was executed")
	}
	ran, all := c.Total(survey.PartGGML, target)
	t.Logf("%d of %d kernels of libggml-hip were executed", ran, all)
}

// TestEmulatedOperationsNoticeWrongKernel ends a kernel of libggml-hip at its first instruction: the operation then
// differs.
func TestEmulatedOperationsNoticeWrongKernel(t *testing.T) {
	r := newRig(t, "gfx1100")
	const end = 0xbfb00000 // s_endpgm
	n, err := survey.Patch(r.alone(t, "libggml-hip.so"), "gfx1100", kernelScale, func(_ survey.CodeObject, k survey.Kernel) (int64, []uint32, error) {
		return k.Offset, []uint32{end}, nil
	})
	if err != nil || n == 0 {
		t.Fatalf("libggml-hip has %d kernels %s: %v", n, kernelScale, err)
	}
	outcomes := map[backendops.Outcome]int{}
	err = r.operations(t).RunOperation(t.Context(), "SCALE,SQR", `type=f32,ne=\[10,`, func(one backendops.Result) error {
		outcomes[one.Outcome]++
		if want := map[string]backendops.Outcome{"SCALE": backendops.Different, "SQR": backendops.Equal}[one.Operation]; one.Outcome != want {
			return fmt.Errorf("%s is %s: %s", one.Case, one.Outcome, one.Reason)
		}
		return nil
	})
	if err != nil || outcomes[backendops.Different] == 0 || outcomes[backendops.Equal] == 0 {
		t.Errorf("%v, %v", outcomes, err)
	}
}
