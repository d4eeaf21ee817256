//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

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
	for name, tt := range map[string]struct{ path, body string }{
		"completion":         {"/completion", `{"prompt":"There","ignore_eos":true,"n_predict":4000}`},
		"with probabilities": {"/completion", `{"prompt":"There","ignore_eos":true,"n_predict":4000,"n_probs":3}`},
		"chat with tools":    {"/v1/chat/completions", `{"messages":[{"role":"user","content":"Tell"}],"ignore_eos":true,"max_tokens":4000,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]}`},
		"stream in a prompt": {"/completion", `{"prompt":"` + strings.Repeat("word ", 3900) + `","n_predict":10,"stream":true}`},
	} {
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
