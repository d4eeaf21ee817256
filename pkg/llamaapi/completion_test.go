package llamaapi_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func text(s string) *llamaapi.CompletionRequest {
	return &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt(s)}}
}

// say reads a stream to its end and returns its text.
func say(t *testing.T, c *llamaapi.Client, r *llamaapi.CompletionRequest) string {
	t.Helper()
	text, _ := read(t, c, r)
	return text
}

// read reads a stream to its end and returns its text and its ids.
func read(t *testing.T, c *llamaapi.Client, r *llamaapi.CompletionRequest) (string, []int32) {
	t.Helper()
	s, err := c.Completion(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var ids []int32
	for tok := range s.All() {
		b.WriteString(tok.Text)
		ids = append(ids, tok.ID)
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
	return b.String(), ids
}

func TestChat(t *testing.T) {
	c, f := fake(t, fakellama.Script{Reply: "Hello! 😀"})
	msgs := []llamaapi.Message{{Role: "system", Content: "Be kind."}, {Role: "user", Content: "Hi <&>"}}
	prompt, err := c.ApplyTemplate(t.Context(), msgs, llamaapi.TemplateOptions{Vars: map[string]any{"enable_thinking": false}})
	if want := "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <&><|im_end|>\n<|im_start|>assistant\n"; err != nil || prompt != want {
		t.Errorf("prompt %q, %v", prompt, err)
	}
	s, err := c.Chat(t.Context(), msgs, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	toks := slices.Collect(s.All())
	var b strings.Builder
	for _, tok := range toks {
		b.WriteString(tok.Text)
	}
	if b.String() != "Hello! 😀" || s.Err() != nil || s.Final().Reason != llamaapi.StopEOS || s.Final().LostTokens != 0 {
		t.Errorf("reply %q, %v, %+v", b.String(), s.Err(), s.Final())
	}
	if n := f.Requests(); n != 1 {
		t.Errorf("%d completions for one chat", n)
	}
	c, _ = fake(t, fakellama.Script{TemplateError: "Conversation roles must alternate"})
	if _, err := c.Chat(t.Context(), msgs, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{}); err == nil || !strings.Contains(err.Error(), "roles must alternate") {
		t.Errorf("template error: %v", err)
	}
}

// TestStreamEqualsComplete checks that a stream has the same ids and text as the completion
// without streaming, including runes that are split over several tokens.
func TestStreamEqualsComplete(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Slots: 2, PingEvery: 3, CRLF: true})
	zero, most := float32(0), 200
	runes := 0
	for _, p := range []string{"one", "two", "three", "four", "five"} {
		req := text(p)
		req.Temperature, req.MaxTokens = &zero, &most
		whole, err := c.Complete(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Completion(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int32
		var b strings.Builder
		for tok := range s.All() {
			ids = append(ids, tok.ID)
			b.WriteString(tok.Text)
			if tok.Text == "" {
				runes++
			}
		}
		want := whole[0].Tokens
		if whole[0].Reason == llamaapi.StopEOS {
			want = want[:len(want)-1]
		}
		if s.Err() != nil || !slices.Equal(ids, want) || b.String() != whole[0].Text {
			t.Errorf("%s: %v\nstream %v %q\nwhole  %v %q", p, s.Err(), ids, b.String(), want, whole[0].Text)
		}
	}
	if runes == 0 {
		t.Error("no rune was split: the test shows nothing")
	}
}

func TestCompleteBatch(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Slots: 2})
	most, zero := 12, float32(0)
	req := &llamaapi.CompletionRequest{MaxTokens: &most, Temperature: &zero, Probs: 4}
	for _, p := range []string{"a", "b", "c", "d", "e"} {
		req.Prompts = append(req.Prompts, llamaapi.TextPrompt(p))
	}
	got, err := c.Complete(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range req.Prompts {
		one, err := c.Complete(t.Context(), &llamaapi.CompletionRequest{
			Prompts: []llamaapi.Prompt{p}, MaxTokens: &most, Temperature: &zero,
		})
		if err != nil || got[i].Text != one[0].Text || !slices.Equal(got[i].Tokens, one[0].Tokens) {
			t.Errorf("prompt %d: %q, alone %q, %v", i, got[i].Text, one[0].Text, err)
		}
		if len(got[i].Positions) == 0 || len(got[i].Positions[0].Top) != 4 || got[i].Positions[0].Top[0].ID != got[i].Tokens[0] {
			t.Errorf("prompt %d: probabilities %+v", i, got[i].Positions)
		}
	}
	req.StopIDs = []int32{got[0].Tokens[3]}
	cut, err := c.Complete(t.Context(), req)
	if err != nil || len(cut[0].Tokens) > 3 || cut[0].Reason != llamaapi.StopID {
		t.Errorf("stop id: %+v, %v", cut[0], err)
	}
}

func TestInvalidRequests(t *testing.T) {
	c, f := fake(t, fakellama.Script{})
	for name, r := range map[string]*llamaapi.CompletionRequest{
		"no prompt":          {},
		"mutually exclusive": {Prompts: []llamaapi.Prompt{{Text: "x"}}, Grammar: "root ::= \"a\"", JSONSchema: []byte(`{}`)},
		"not valid JSON":     {Prompts: []llamaapi.Prompt{{Text: "x"}}, JSONSchema: []byte(`{`)},
		"has one prompt":     {Prompts: []llamaapi.Prompt{{Text: "x"}, {Text: "y"}}},
		"does not support":   {Prompts: []llamaapi.Prompt{{Text: "x <__media__>", Media: [][]byte{{1, 2}}}}},
		"unsupported type":   {Prompts: []llamaapi.Prompt{{Text: "x"}}, Extra: map[string]any{"f": func() {}}},
		"contains invalid ":  {Prompts: []llamaapi.Prompt{llamaapi.TokenPrompt(1, 999999)}},
	} {
		if _, err := c.Completion(t.Context(), r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
	if n := f.Busy(); n != 0 {
		t.Errorf("%d slots are busy after rejected requests", n)
	}
}

// TestConcurrentStreams reads more streams than there are slots with one client.
func TestConcurrentStreams(t *testing.T) {
	c, f := fake(t, fakellama.Script{Slots: 4, TokenDelay: 100 * time.Microsecond})
	zero, most := float32(0), 40
	req := func(i int) *llamaapi.CompletionRequest {
		r := text(strings.Repeat("p", i))
		r.Temperature, r.MaxTokens = &zero, &most
		return r
	}
	want := make([]string, 16)
	for i := range want {
		want[i] = say(t, c, req(i))
	}
	var wg sync.WaitGroup
	for i := range want {
		wg.Go(func() {
			s, err := c.Completion(t.Context(), req(i))
			if err != nil {
				t.Error(err)
				return
			}
			var b strings.Builder
			for tok := range s.All() {
				b.WriteString(tok.Text)
			}
			if b.String() != want[i] || s.Err() != nil {
				t.Errorf("stream %d: %q, %v; alone %q", i, b.String(), s.Err(), want[i])
			}
		})
	}
	wg.Wait()
	if f.Busy() != 0 {
		t.Error("a slot is still busy")
	}
}

// ptr returns a pointer to v. (The expression new(v) needs Go 1.26.)
func ptr[T any](v T) *T { return &v }
