//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// busySlots returns the number of slots that compute.
func (s *served) busySlots(t *testing.T) int {
	t.Helper()
	res, err := http.Get(s.url + "/slots")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var slots []struct {
		Processing bool `json:"is_processing"`
	}
	if err := json.NewDecoder(res.Body).Decode(&slots); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, slot := range slots {
		if slot.Processing {
			n++
		}
	}
	return n
}

// llama-server looks for a client that has left only when no other stream has had a
// token for a second. The gateway makes sure that it looks.
func TestAbandonedRequestsFreeTheirSlots(t *testing.T) {
	s := serve(t, "--context", "8192", "--slots", "2", realModel(t, models.SmolLM2()))
	streamed := make(chan string, 1)
	go func() {
		_, text := s.post(t.Context(), t, "", "/completion", `{"prompt":"Once","ignore_eos":true,"n_predict":4000,"stream":true}`)
		streamed <- text
	}()
	poll.Until(t, "a busy slot", func() bool { return s.busySlots(t) == 1 })
	few := []string{"completion", "stream in a prompt"} // in CI: a whole answer, and a stream without a token
	for name, tt := range map[string]struct{ path, body string }{
		"completion":         {"/completion", `{"prompt":"There","ignore_eos":true,"n_predict":4000}`},
		"with probabilities": {"/completion", `{"prompt":"There","ignore_eos":true,"n_predict":4000,"n_probs":3}`},
		"chat with tools":    {"/v1/chat/completions", `{"messages":[{"role":"user","content":"Tell"}],"ignore_eos":true,"max_tokens":4000,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]}`},
		"stream in a prompt": {"/completion", `{"prompt":"` + strings.Repeat("word ", 3900) + `","n_predict":10,"stream":true}`},
	} {
		if cases.Of(true, true, false) && !slices.Contains(few, name) {
			continue
		}
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			s.post(ctx, t, "", tt.path, tt.body)
		}()
		poll.Until(t, "two busy slots", func() bool { return s.busySlots(t) == 2 })
		start := time.Now()
		leave()
		<-gone
		poll.Until(t, "a free slot", func() bool { return s.busySlots(t) < 2 })
		t.Logf("%s: free after %s", name, time.Since(start).Round(10*time.Millisecond))
		select {
		case raw := <-streamed:
			t.Fatalf("%s: only because the stream ended: ...%s", name, raw[max(0, len(raw)-300):])
		default:
		}
	}
}

// The same for a program that uses package rocm: the slot is free long before the
// prompt of the abandoned call would have been computed.
func TestAbandonedCallsFreeTheirSlots(t *testing.T) {
	s := rocm.Settings{}
	s.Context, s.Slots = 16384, 2
	model, err := (&rocm.Backend{}).Load(t.Context(), realModel(t, models.SmolLM2()), s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	}()
	busy := func(n int) func() bool {
		return func() bool {
			slots, err := model.API().Slots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			computing := 0
			for _, slot := range slots {
				if slot.Processing {
					computing++
				}
			}
			return computing == n
		}
	}
	endless := map[string]any{"ignore_eos": true}
	other, err := model.API().Completion(t.Context(), &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt("Once")}, Extra: endless})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for other.Next() {
		}
	}()
	poll.Until(t, "a busy slot", busy(1))
	long := strings.Repeat("word ", 7000)
	few := []string{"Generate", "API"} // in CI: a stream without a token, and a whole answer
	for name, call := range map[string]func(ctx context.Context) error{
		"Generate": func(ctx context.Context) error {
			stream := model.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt(long), GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
			for range stream.All() {
			}
			return stream.Err()
		},
		"Classify": func(ctx context.Context) error {
			_, err := model.Classify(ctx, []string{long})
			return err
		},
		"API": func(ctx context.Context) error {
			_, err := model.API().Complete(ctx, &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt("There")}, Extra: endless})
			return err
		},
	} {
		if cases.Of(true, true, false) && !slices.Contains(few, name) {
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		called := make(chan error, 1)
		go func() { called <- call(ctx) }()
		poll.Until(t, "two busy slots", busy(2))
		start := time.Now()
		cancel()
		if err := <-called; !errors.Is(err, context.Canceled) {
			t.Errorf("%s returned %v", name, err)
		}
		poll.Until(t, "a free slot", func() bool { return busy(1)() || busy(0)() })
		t.Logf("%s: free after %s", name, time.Since(start).Round(10*time.Millisecond))
		select {
		case <-read:
			t.Fatalf("%s: only because the other stream ended: %v", name, other.Err())
		default:
		}
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	<-read
}
