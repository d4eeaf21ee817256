package result

import (
	"math"
	"reflect"
	"testing"

	goinf "dappco.re/go/inference"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func TestRequest(t *testing.T) {
	on, off := true, false
	for name, tt := range map[string]struct {
		think *bool
		want  map[string]any
	}{
		"as the model likes": {nil, nil},
		"thinking":           {&on, map[string]any{"enable_thinking": true}},
		"not thinking":       {&off, map[string]any{"enable_thinking": false}},
	} {
		r, err := request(goinf.GenerateConfig{
			MaxTokens: 9, Temperature: 0.5, TopK: 4, TopP: 0.9, MinP: 0.1, RepeatPenalty: 1.1, StopTokens: []int32{2},
			Seed: 5, SeedSet: true, EnableThinking: tt.think, Thinking: goinf.ThinkingConfig{Mode: goinf.ThinkingShow},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := inference.GenerateConfig{MaxTokens: 9, Temperature: 0.5, TopK: 4, TopP: 0.9, RepeatPenalty: 1.1, StopTokens: []int32{2}}
		if !reflect.DeepEqual(r.GenerateConfig, want) || r.MinP != 0.1 || r.Seed == nil || *r.Seed != 5 {
			t.Errorf("%s: %+v", name, r)
		}
		if !reflect.DeepEqual(r.TemplateVars, tt.want) {
			t.Errorf("%s: template variables %v", name, r.TemplateVars)
		}
	}
}

// llama-server reads 32 bits, and treats the value with all bits set as "random".
func TestSeedFits(t *testing.T) {
	seen := map[int64]uint64{}
	for _, s := range []uint64{0, 1, math.MaxUint32 - 5, 1 << 40, 1<<40 + 1, math.MaxUint32} {
		got := seed(s)
		if got < 0 || got >= math.MaxUint32 {
			t.Errorf("seed %d became %d", s, got)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("seeds %d and %d both became %d", s, other, got)
		}
		seen[got] = s
	}
}
