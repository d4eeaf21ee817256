package gateway

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

func TestWaitsForAModelToADeadline(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	f.models["m"].gate = make(chan struct{})
	got := send(t, "POST", f.serve(Options{Limits: Limits{LoadWait: time.Millisecond}})+"/completion", `{"prompt":"x"}`)
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "in time") {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
}

// A client that asked for a stream gets comments while it waits, and then what any
// other would get, an error as an event.
func TestCommentsWhileAModelLoads(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path, body string
		err        error
		want       string
	}{
		"answer":       {"/v1/chat/completions", `{"messages":[],"stream":true}`, nil, "data: m {\"messages\":[],\"stream\":true}\n\n"},
		"error":        {"/v1/chat/completions", `{"messages":[],"stream":true}`, &NoRoomError{Model: "m"}, `data: {"error":{"code":503,"message":"the model \"m\" does not fit into the free memory","type":"unavailable_error"}}` + "\n\n"},
		"to Anthropic": {"/v1/messages", `{"messages":[],"stream":true}`, &NoRoomError{Model: "m"}, "event: error\ndata: {\"type\":\"error\",\"error\":{\"code\":503,"},
	} {
		f := newModels(t, "m")
		gate := make(chan struct{})
		f.models["m"].gate, f.models["m"].err = gate, tt.err
		url := f.serve(Options{Limits: Limits{FirstComment: time.Millisecond, Comments: time.Millisecond}})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewReader(res.Body)
		for range 3 {
			line, err := lines.ReadString('\n')
			if err != nil || line != ": waiting\n" && line != ": loading the model m, 42 %\n" {
				t.Errorf("%s: %q, %v", name, line, err)
			}
			_, _ = lines.ReadString('\n')
		}
		close(gate)
		rest, err := io.ReadAll(lines)
		answer := string(rest)
		for strings.HasPrefix(answer, ": ") {
			_, answer, _ = strings.Cut(answer, "\n\n")
		}
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(answer, tt.want) {
			t.Errorf("%s: %d %v %q, %v; want %q", name, res.StatusCode, res.Header, answer, err, tt.want)
		}
		f.waitReleased()
	}
}

// Without a stream the status says what happened.
func TestOthersWaitSilently(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	gate := make(chan struct{})
	f.models["m"].gate = gate
	url := f.serve(Options{Limits: Limits{FirstComment: time.Millisecond, Comments: time.Millisecond}})
	time.AfterFunc(20*time.Millisecond, func() { close(gate) })
	if got := send(t, "POST", url+"/completion", `{"prompt":"x","stream":false}`); got.status != 200 || strings.Contains(got.body, ": waiting") || strings.Contains(got.body, "loading") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A client that leaves while the model loads is not waited for.
func TestClientsLeaveWhileAModelLoads(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	f.models["m"].gate = make(chan struct{})
	url := f.serve(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(`{"prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		left <- err
	}()
	poll.Until(t, "the request for a lease", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.models["m"].asked) == 1
	})
	cancel()
	if <-left == nil {
		t.Error("the client got an answer")
	}
	f.waitReleased()
}
