package result

import (
	"fmt"
	"math"
	"slices"

	goinf "dappco.re/go/inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// contract returns the options that pkg/inference has as well.
func contract(c goinf.GenerateConfig) inference.GenerateConfig {
	limit := c.MaxTokens
	if limit == 0 {
		limit = math.MaxInt32 // the server stops when the context is full
	}
	return inference.GenerateConfig{
		MaxTokens: limit, Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP,
		StopTokens: c.StopTokens, RepeatPenalty: c.RepeatPenalty, ReturnLogits: c.ReturnLogits,
	}
}

// request converts options. Its error names an option that is not supported.
func request(c goinf.GenerateConfig) (rocm.Request, error) {
	if err := possible(c); err != nil {
		return rocm.Request{}, err
	}
	r := rocm.Request{GenerateConfig: contract(c), MinP: c.MinP}
	if c.SeedSet {
		s := seed(c.Seed)
		r.Seed = &s
	}
	if c.EnableThinking != nil {
		r.TemplateVars = map[string]any{"enable_thinking": *c.EnableThinking}
	}
	return r, nil
}

// seed folds 64 bits into the 32 that llama-server accepts, and avoids
// LLAMA_DEFAULT_SEED, which requests a random seed (include/llama.h).
func seed(s uint64) int64 {
	return int64(min((s^s>>32)&math.MaxUint32, math.MaxUint32-1))
}

func possible(c goinf.GenerateConfig) error {
	unsupported := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", rocm.ErrInvalidOption, fmt.Sprintf(format, args...))
	}
	switch {
	case len(c.SuppressTokens) > 0:
		return unsupported("%d tokens to suppress; this backend cannot, leave SuppressTokens empty", len(c.SuppressTokens))
	case c.MinTokensBeforeStop > 0:
		return unsupported("at least %d tokens before a stop; this backend cannot, leave MinTokensBeforeStop 0", c.MinTokensBeforeStop)
	case c.ThinkingBudget > 0:
		return unsupported("a thinking budget of %d tokens; this backend cannot, use EnableThinking or MaxTokens", c.ThinkingBudget)
	case c.Thinking.Mode != "" && c.Thinking.Mode != goinf.ThinkingShow:
		return unsupported("thinking mode %q; this backend yields what the model writes, use %q", c.Thinking.Mode, goinf.ThinkingShow)
	}
	return nil
}

// plain returns the options for operations with several prompts, which accept only those of
// pkg/inference.
func plain(opts []goinf.GenerateOption) (inference.GenerateOption, error) {
	c := goinf.ApplyGenerateOpts(opts)
	if err := possible(c); err != nil {
		return nil, err
	}
	if c.Temperature != 0 && (c.MinP != 0 || c.SeedSet) { // greedy sampling ignores both
		return nil, fmt.Errorf("%w: seed and min-p are for Generate and Chat", rocm.ErrInvalidOption)
	}
	return func(to *inference.GenerateConfig) { *to = contract(c) }, nil
}

// mediaMessages converts a conversation. Images and audio precede the text of their message,
// or replace the rocm.MediaMarkers in it.
func mediaMessages(messages []goinf.Message) ([]rocm.MediaMessage, error) {
	out := make([]rocm.MediaMessage, len(messages))
	for i, m := range messages {
		if n := len(m.Videos); n > 0 {
			return nil, fmt.Errorf("%w: message %d carries %d videos; this backend reads images and sound, give frames as images", rocm.ErrInvalidOption, i, n)
		}
		out[i].Message = inference.Message{Role: m.Role, Content: m.Content}
		for _, data := range slices.Concat(m.Images, m.Audios) {
			out[i].Media = append(out[i].Media, rocm.Media{Data: data})
		}
	}
	return out, nil
}
