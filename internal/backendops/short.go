package backendops

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Short is the cases that a change has to pass on a device: few of those that the program lists, and few fused ones.
type Short struct {
	Processes int                 // how many run at a time
	Choose    func([]Case) []Case // among the cases that the device supports, in their order
	Fused     []Unit
	Required  []string // operations with at least one case that is equal
	Known     []Known
}

// Known is a case that is not equal, and why that is accepted.
type Known struct {
	Case
	Outcome Outcome // Different, Crashed or TooSlow
	Reason  string
}

// FusedShort are small cases of every fused operation. A product with a bias and a gate compiles the most shaders, so
// few types of weights are among its cases.
var FusedShort = []Unit{
	{Operation: "MUL_MAT_VEC_FUSION", Params: `type=(f16|q4_0|q8_0|q4_K),glu_op=2,m=1,n=32,.*use_id=0,.*b=0,with_bias=1,with_gate=1`},
	{Operation: "NORM_MUL_ADD,RMS_NORM_SCALE,NORM_SCALE,RMS_NORM_MUL_ADD,ADD_ADD,ADD_RMS_NORM,L2_NORM_BATCH", Params: `ne=\[64,`},
	{
		Operation: "RELU_SQR,GELU_MUL,SILU_MUL,SIGMOID_MUL,SOFTPLUS_MUL,SNAKE_FUSE,ROPE_SET_ROWS,RMS_NORM_MUL_ROPE,SSM_CONV_BIAS_SILU",
		Params:    `ne=\[128,2,2,2\]$|ne=\[128,2,2,2\],swap=0|ne=\[128,16,|ne_a=\[128,32,1,1\]|^ne=\[128,4,2,1\]|ne_a=\[3,1024,1,1\]`,
	},
	{
		Operation: "SOFTCAP,DSV4_HC_COMB,DSV4_HC_PRE,DSV4_HC_POST,SSM_SCAN_ROLLBACK,GATED_DELTA_NET_CACHE_FUSION,MUL_MAT_HADAMARD,MUL_MAT_ID_FUSION,TOPK_QSA,TOPK_MOE,MOE_REDUCE,GROUP_NORM_MUL_ADD",
		Params:    `softcap=|n_tokens=17,|n_seqs=[12],K=|m=64,n=1,|m=32,n=32,|n_blocks=64,|ne=\[32,22,1,1\],n_expert_used=8,with_norm=1,bias_probs=0,|n_embd=63,|ne=\[9,`,
	},
}

// Run computes the cases and returns their results, also if the error says what is wrong with them: a case that is not
// equal and not known, or a known or required one that was not run.
func (s Short) Run(ctx context.Context, p Program) ([]Result, error) {
	supported, _, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	units := append(slices.Clone(s.Fused), Units(s.Choose(supported))...)
	var results []Result
	err = p.RunUnits(ctx, max(s.Processes, 1), units, func(r Result) error {
		results = append(results, r)
		return nil
	}, nil)
	if err != nil {
		return results, err
	}
	results = Merge(results)
	return results, s.check(results)
}

// check compares the results with what is known and required.
func (s Short) check(results []Result) error {
	var errs []error
	outcomes, equal := map[Case]Outcome{}, map[string]bool{}
	for _, r := range results {
		outcomes[r.Case] = r.Outcome
		equal[r.Operation] = equal[r.Operation] || r.Outcome == Equal
		known := slices.ContainsFunc(s.Known, func(k Known) bool { return k.Case == r.Case && k.Outcome == r.Outcome })
		if r.Outcome != Equal && r.Outcome != Unsupported && !known {
			errs = append(errs, fmt.Errorf("%s %s: %s", r.Case, r.Outcome, r.Reason))
		}
	}
	for _, k := range s.Known {
		switch outcome, ran := outcomes[k.Case]; {
		case !ran:
			errs = append(errs, fmt.Errorf("%s, whose difference is known, was not run", k.Case))
		case outcome == Equal:
			errs = append(errs, fmt.Errorf("%s is equal: remove it from the cases that are known not to be", k.Case))
		}
	}
	for _, operation := range s.Required {
		if !equal[operation] {
			errs = append(errs, fmt.Errorf("no case of %s is equal", operation))
		}
	}
	return errors.Join(errs...)
}
