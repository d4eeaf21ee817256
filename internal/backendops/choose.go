package backendops

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// FusedOperations are the operations of whose cases test-backend-ops compares whole graphs.
var FusedOperations = []string{
	"ROPE_SET_ROWS", "RMS_NORM_MUL_ROPE", "SOFTCAP", "NORM_MUL_ADD", "RMS_NORM_SCALE", "NORM_SCALE", "RMS_NORM_MUL_ADD",
	"ADD_ADD", "ADD_RMS_NORM", "RELU_SQR", "GELU_MUL", "SILU_MUL", "SIGMOID_MUL", "SOFTPLUS_MUL", "SNAKE_FUSE",
	"DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST", "SSM_CONV_BIAS_SILU", "SSM_SCAN_ROLLBACK", "GATED_DELTA_NET_CACHE_FUSION",
	"MUL_MAT_HADAMARD", "MUL_MAT_ID_FUSION", "TOPK_QSA", "TOPK_MOE", "MOE_REDUCE", "MUL_MAT_VEC_FUSION", "GROUP_NORM_MUL_ADD",
	"L2_NORM_BATCH",
}

// shortFused are the units of the fused operations in the short form: small cases of each operation, and
// of MUL_MAT_VEC_FUSION each type.
var shortFused = []Unit{
	{Operation: "NORM_MUL_ADD,RMS_NORM_SCALE,NORM_SCALE,RMS_NORM_MUL_ADD,ADD_ADD,ADD_RMS_NORM,L2_NORM_BATCH", Params: `ne=\[64,`},
	{
		Operation: "RELU_SQR,GELU_MUL,SILU_MUL,SIGMOID_MUL,SOFTPLUS_MUL,SNAKE_FUSE,ROPE_SET_ROWS,RMS_NORM_MUL_ROPE,SSM_CONV_BIAS_SILU",
		Params:    `ne=\[128,2,2,2\]$|ne=\[128,2,2,2\],swap=0|ne=\[128,16,|ne_a=\[128,32,1,1\]|^ne=\[128,4,2,1\]|ne_a=\[3,1024,1,1\]`,
	},
	{
		Operation: "SOFTCAP,DSV4_HC_COMB,DSV4_HC_PRE,DSV4_HC_POST,SSM_SCAN_ROLLBACK,GATED_DELTA_NET_CACHE_FUSION,MUL_MAT_HADAMARD,MUL_MAT_ID_FUSION,TOPK_QSA,TOPK_MOE,MOE_REDUCE,GROUP_NORM_MUL_ADD",
		Params:    `softcap=|n_tokens=17,|n_seqs=[12],K=|m=64,n=1,|m=32,n=32,|n_blocks=64,|ne=\[32,22,1,1\]|n_embd=63,|ne=\[9,`,
	},
	{Operation: "MUL_MAT_VEC_FUSION", Params: `glu_op=2,m=1,n=32,.*b=0,with_bias=1,with_gate=1`},
}

// perGroup is how many cases of each group are in the short form.
const perGroup = 1

// largest limits the size of a case in the short form, unless its group has no smaller one.
const largest = 1 << 24

// Short returns some of the cases: for each operation, for each combination of its types, and for each
// way that kernels are chosen (one column or many, the mask, the mode), the smallest ones.
func Short(cases []Case) []Case {
	groups := map[string][]int{}
	for i, c := range cases {
		groups[group(c)] = append(groups[group(c)], i)
	}
	var chosen []int
	for _, members := range groups {
		slices.SortStableFunc(members, func(a, b int) int { return cmp.Compare(size(cases[a]), size(cases[b])) })
		members = slices.CompactFunc(members, func(a, b int) bool { return cases[a] == cases[b] })
		for n, i := range members {
			if n == 0 || n < perGroup && size(cases[i]) <= largest {
				chosen = append(chosen, i)
			}
		}
	}
	slices.Sort(chosen) // the program's order
	out := make([]Case, len(chosen))
	for n, i := range chosen {
		out[n] = cases[i]
	}
	return out
}

// param is one parameter of a case.
type param struct{ name, value string }

// params reads the parameters of a case. A list in brackets is one value.
func params(c Case) []param {
	var out []param
	depth, start := 0, 0
	add := func(text string) {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			name, value = "", text
		}
		out = append(out, param{name, value})
	}
	for i, b := range []byte(c.Params) {
		switch {
		case b == '[':
			depth++
		case b == ']':
			depth--
		case b == ',' && depth == 0:
			add(c.Params[start:i])
			start = i + 1
		}
	}
	if start < len(c.Params) {
		add(c.Params[start:])
	}
	return out
}

// choosing are parameters by whose values backends choose another kernel.
var choosing = []string{"mode", "mask", "sinks", "order", "hsk", "hsv", "cwhn", "kda", "is_2D", "tri_type", "scale_factor", "head_size", "d_state", "circular", "swapped"}

// number matches a number; anything else, such as a type, is the name of something.
var number = regexp.MustCompile(`^-?[0-9.]+(e-?[0-9]+)?$`)

// group returns what cases of one kernel have in common.
func group(c Case) string {
	key := []string{c.Operation}
	for _, p := range params(c) {
		switch {
		case p.name == "n" && strings.HasPrefix(c.Operation, "MUL_MAT"), p.name == "nb" && c.Operation == "FLASH_ATTN_EXT":
			key = append(key, columns(p.value))
		case c.Operation == "FLASH_ATTN_EXT" && (p.name == "mask" || p.name == "sinks"): // arguments of the same kernels
		case slices.Contains(choosing, p.name), !number.MatchString(p.value) && !strings.HasPrefix(p.value, "["):
			key = append(key, p.name+"="+p.value)
		}
	}
	return strings.Join(key, " ")
}

// columns returns the class of a number of columns. Backends have kernels for one, for a few and for
// many.
func columns(value string) string {
	switch n, err := strconv.Atoi(value); {
	case err != nil:
		return value
	case n == 1:
		return "one"
	case n <= 8:
		return "few"
	default:
		return "many"
	}
}

// whole matches the whole numbers of a value.
var whole = regexp.MustCompile(`[0-9]+`)

// size returns a measure of the work of a case: the product of its whole numbers.
func size(c Case) uint64 {
	product := uint64(1)
	for _, p := range params(c) {
		if !strings.HasPrefix(p.value, "[") && !number.MatchString(p.value) || strings.Contains(p.value, ".") {
			continue
		}
		for _, text := range whole.FindAllString(p.value, -1) {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil || n > 0 && product > math.MaxUint64/n {
				return math.MaxUint64
			}
			product *= max(1, n)
		}
	}
	return product
}
