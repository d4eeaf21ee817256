package plan

import (
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// The facts below are those that llama.cpp v0.5.0 derives from metadata
// (src/models/*.cpp, llama-hparams.cpp, llama-model.cpp).

// windowRule determines which layers of an architecture use a sliding window if the
// file does not list them: all but every pattern-th.
type windowRule struct {
	pattern    int
	denseFirst bool   // the full layer comes first in each group
	size       uint64 // window if the file states none; 0: no window
}

func windowOf(arch string) (windowRule, bool) {
	switch arch {
	case "gemma2":
		return windowRule{pattern: 2, size: 4096}, true
	case "gemma3", "gemma-embedding":
		return windowRule{pattern: 6}, true
	case "gemma3n":
		return windowRule{pattern: 5}, true
	case "gpt-oss":
		return windowRule{pattern: 2}, true
	case "cohere2", "afmoe", "mellum", "olmo2", "muse-glimmer":
		return windowRule{pattern: 4}, true
	case "exaone-moe":
		return windowRule{pattern: 4, size: 128}, true
	case "exaone4":
		return windowRule{pattern: 4}, true
	case "llama4":
		return windowRule{pattern: 4, size: 8192}, true
	case "cohere2moe", "laguna":
		return windowRule{pattern: 4, denseFirst: true}, true
	case "smallthinker":
		return windowRule{pattern: 4, denseFirst: true}, true
	case "plamo3":
		return windowRule{pattern: 8}, true
	case "lfm2", "lfm2moe":
		return windowRule{pattern: 0}, true // every attention layer
	case "gemma4", "gemma4-assistant", "granite_swa", "maple", "mimo2", "step35", "spark2_5":
		return windowRule{pattern: 1}, true // the file lists them
	}
	return windowRule{}, false
}

// isWindow applies the rule to layer i.
func (w windowRule) isWindow(i int) bool {
	switch {
	case w.pattern == 0:
		return true
	case w.denseFirst:
		return i%w.pattern != 0
	default:
		return i%w.pattern < w.pattern-1
	}
}

// windows returns the window size and the layers that have a window.
func windows(f *gguf.File, layers int) (size uint64, is []bool) {
	is = make([]bool, layers)
	rule, known := windowOf(f.Architecture())
	if !known {
		return 0, is
	}
	size, stated := f.ArchUint("attention.sliding_window")
	if !stated {
		size = rule.size
	}
	if size == 0 {
		return 0, is
	}
	listed, err := f.ArchUints("attention.sliding_window_pattern")
	switch {
	case err == nil && len(listed) > 1:
		for i := range is {
			is[i] = i < len(listed) && listed[i] != 0
		}
		return size, is
	case err == nil && len(listed) == 1:
		rule.pattern = int(min(listed[0], 512))
	}
	for i := range is {
		is[i] = rule.isWindow(i)
	}
	return size, is
}

// recurrentKind is the way in which an architecture marks its recurrent layers.
type recurrentKind int

const (
	neverRecurrent  recurrentKind = iota
	alwaysRecurrent               // every layer, and no attention
	bothInEach                    // every layer has attention too
	whenNoKeys                    // layers with no key heads
	whenNoKeysNoFF                // layers with neither key heads nor feed-forward
	byInterval                    // all but every n-th layer
)

func recurrence(arch string) (kind recurrentKind, interval uint64) {
	switch arch {
	case "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7":
		return alwaysRecurrent, 0
	case "falcon-h1":
		return bothInEach, 0
	case "jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3":
		return whenNoKeys, 0
	case "nemotron_h", "nemotron_h_moe":
		return whenNoKeysNoFF, 0
	case "qwen3next", "qwen35", "qwen35moe", "qwen4exp":
		return byInterval, 4
	case "minimax-01":
		return byInterval, 8
	}
	return neverRecurrent, 0
}

// noCache reports whether an architecture keeps nothing between batches.
func noCache(arch string) bool {
	return slices.Contains([]string{
		"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
		"gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1",
	}, arch)
}

// stateSize returns the numbers of floats of convolution and of state that one
// recurrent layer keeps for one sequence.
func stateSize(f *gguf.File, embd, heads uint64) (conv, state uint64) {
	get := func(key string) uint64 {
		v, _ := f.ArchUint(key) // absent counts as 0, as in llama.cpp
		return min(v, 1<<16)    // products of three stay far below overflow
	}
	if wkv := get("wkv.head_size"); wkv != 0 {
		shift := uint64(2)
		if v, ok := f.ArchUint("token_shift_count"); ok {
			shift = v
		}
		return shift * embd, embd * wkv
	}
	if l := get("shortconv.l_cache"); l != 0 {
		return embd * (l - 1), get("ssm.state_size") * get("ssm.inner_size")
	}
	kernel := get("ssm.conv_kernel")
	if kda := get("kda.head_dim"); kda != 0 {
		steps := uint64(3)
		if kernel > 0 {
			steps = kernel - 1
		}
		return 3 * steps * heads * kda, kda * kda * heads
	}
	if f.Architecture() == "minimax-01" {
		head := get("attention.key_length")
		return 0, head * head * heads
	}
	inner, size := get("ssm.inner_size"), get("ssm.state_size")
	if kernel > 0 {
		conv = (kernel - 1) * (inner + 2*get("ssm.group_count")*size)
	}
	return conv, size * inner
}
