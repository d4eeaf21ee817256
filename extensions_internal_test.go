package rocm

import (
	"reflect"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Each request has the scales of SetAdapters: a restart may have replaced the process
// that received them.
func TestSetScalesAreSentWithEachRequest(t *testing.T) {
	tap := &wiretap{stream: oneToken + finalEvent, whole: wholeAnswer}
	m := tapped(t, tap)
	if err := m.SetAdapters(t.Context(), []llamaapi.LoRAScale{{ID: 1, Scale: 0.25}}); err != nil {
		t.Fatal(err)
	}
	set, own := []any{map[string]any{"id": 1., "scale": 0.25}}, []any{map[string]any{"id": 0., "scale": 2.}}
	one := inference.GenerateConfig{MaxTokens: 1}
	for range m.Stream(t.Context(), Request{Prompt: TextPrompt("p"), GenerateConfig: one}).All() {
		continue
	}
	if _, err := m.Classify(t.Context(), []string{"p"}); err != nil {
		t.Fatal(err)
	}
	for range m.Stream(t.Context(), Request{Prompt: TextPrompt("p"), GenerateConfig: one, Adapters: []llamaapi.LoRAScale{{ID: 0, Scale: 2}}}).All() {
		continue
	}
	bodies := tap.taken("/completion")
	for i, want := range []any{set, set, own} {
		if len(bodies) != 3 || !reflect.DeepEqual(bodies[i]["lora"], want) {
			t.Fatalf("sent %v, want %v in request %d", bodies, want, i)
		}
	}
}

// CountTokens includes the tokens that the model puts before a prompt; Tokenize adds
// none.
func TestCountTokensIncludesSpecialTokens(t *testing.T) {
	tap := &wiretap{whole: `{"tokens":[1,15,16]}`}
	m := tapped(t, tap)
	if n, err := m.CountTokens(t.Context(), "two words"); err != nil || n != 3 {
		t.Errorf("%d tokens, %v", n, err)
	}
	if ids, err := m.Tokenize(t.Context(), "two words"); err != nil || !slices.Equal(ids, []int32{1, 15, 16}) {
		t.Errorf("%v, %v", ids, err)
	}
	got := tap.taken("/tokenize")
	for i, first := range []bool{true, false} {
		want := map[string]any{"content": "two words", "add_special": first, "parse_special": true, "with_pieces": false}
		if len(got) != 2 || !reflect.DeepEqual(got[i], want) {
			t.Errorf("sent %v, want %v", got, want)
		}
	}
}
