package fakellama

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"unicode/utf8"
)

func TestVocab(t *testing.T) {
	v := newVocab()
	for _, s := range []string{"", "the cat", "<|im_start|>user\nhi<|im_end|>", "😀 世界 café \x00\x7f", " the the"} {
		ids := v.tokenize(s, true)
		if got := v.text(ids); got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	}
	if ids := v.tokenize("<|im_end|>", false); slices.Contains(ids, TokenTurnEnd) {
		t.Errorf("plain text becomes a special token: %v", ids)
	}
	if got := v.tokenize("😀", true); len(got) != 3 {
		t.Errorf("an emoji takes %d tokens, want 3", len(got))
	}
	if VocabSize() != len(v.pieces) {
		t.Errorf("size %d, %d pieces", VocabSize(), len(v.pieces))
	}
}

func FuzzTokenize(f *testing.F) {
	f.Add("the cat 😀", true)
	f.Add("\xff<|im_start|>", false)
	v := newVocab()
	f.Fuzz(func(t *testing.T, s string, parse bool) {
		if got := v.text(v.tokenize(s, parse)); got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

func TestIncompleteRunes(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "a": false, "é": false, "😀": false, "a\xc3": true, "\xe4": true, "\xe4\xb8": true,
		"\xf0\x9f": true, "\xf0\x9f\x98": true, "😀a": false, "\x80": false, "\x98\x80\x80\x80": false,
	} {
		if got := incomplete(s); got != want {
			t.Errorf("incomplete(%q) = %v", s, got)
		}
	}
}

// TestGeneratedTextIsDeterministic checks that the model is a function of prompt and seed, ends by
// itself, and never ends a turn in the middle of a rune.
func TestGeneratedTextIsDeterministic(t *testing.T) {
	_, url := serve(t, Script{Slots: 4})
	run := func(body string) (out struct {
		Content  string
		Tokens   []int32
		StopType string `json:"stop_type"`
	},
	) {
		_, answer, err := post(t.Context(), t, url+"/completion", body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(answer), &out); err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		return out
	}
	ended := 0
	for i := range 20 {
		body := fmt.Sprintf(`{"prompt":"p%d","temperature":0,"return_tokens":true,"n_predict":400}`, i)
		a, b := run(body), run(body)
		if a.Content != b.Content || !slices.Equal(a.Tokens, b.Tokens) {
			t.Errorf("prompt %d gives two answers at temperature 0", i)
		}
		if a.StopType == "eos" {
			ended++
			if !utf8.ValidString(a.Content) {
				t.Errorf("prompt %d: %q", i, a.Content)
			}
		}
	}
	if ended < 10 {
		t.Errorf("%d of 20 answers end by themselves", ended)
	}
	s1, s2 := run(`{"prompt":"x","seed":1}`), run(`{"prompt":"x","seed":2}`)
	if s1.Content == s2.Content || s1.Content != run(`{"prompt":"x","seed":1}`).Content {
		t.Error("the seed does not decide")
	}
}
