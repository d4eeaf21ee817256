package fakellama

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// serve starts a server in process.
func serve(t *testing.T, script Script) (*Server, string) {
	t.Helper()
	s := New(script)
	hs := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		hs.Close()
	})
	return s, hs.URL
}

// post sends a body and returns status and answer; a broken answer is err.
func post(ctx context.Context, t *testing.T, url, body string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// events are the data of a stream.
func events(stream string) []string {
	var out []string
	for part := range strings.SplitSeq(stream, "\n\n") {
		if data, ok := strings.CutPrefix(part, "data: "); ok {
			out = append(out, data)
		}
	}
	return out
}

func TestStreamShape(t *testing.T) {
	_, url := serve(t, Script{Reply: "a😀b"})
	_, stream, err := post(t.Context(), t, url+"/completion", `{"prompt":"x","stream":true}`)
	if err != nil {
		t.Fatal(err)
	}
	got := events(stream)
	want := []string{
		`{"index":0,"content":"a","tokens":[100],"stop":false,"id_slot":-1,"tokens_predicted":1,"tokens_evaluated":1}`,
		`{"index":0,"content":"😀","tokens":[131],"stop":false,"id_slot":-1,"tokens_predicted":4,"tokens_evaluated":1}`,
		`{"index":0,"content":"b","tokens":[101],"stop":false,"id_slot":-1,"tokens_predicted":5,"tokens_evaluated":1}`,
		`{"index":0,"content":"","tokens":[0],"stop":false,"id_slot":-1,"tokens_predicted":6,"tokens_evaluated":1}`,
	}
	if len(got) != 5 || !slices.Equal(got[:4], want) || !strings.Contains(got[4], `"stop_type":"eos"`) {
		t.Errorf("events\n%s", strings.Join(got, "\n"))
	}
}

func TestStopStrings(t *testing.T) {
	_, url := serve(t, Script{Reply: "one two three"})
	for _, tc := range []struct{ stop, content, kind, word string }{
		{`["two"]`, "one ", "word", "two"},
		{`["e t"]`, "on", "word", "e t"},
		{`["four","th"]`, "one two ", "word", "th"},
		{`["threes"]`, "one two three", "eos", ""},
		{`[""]`, "one two three", "eos", ""},
	} {
		_, answer, err := post(t.Context(), t, url+"/completion", `{"prompt":"x","stop":`+tc.stop+`}`)
		var out struct {
			Content, StopType string
			Type              string `json:"stop_type"`
			Word              string `json:"stopping_word"`
		}
		if err := errors.Join(err, json.Unmarshal([]byte(answer), &out)); err != nil {
			t.Fatal(err)
		}
		if out.Content != tc.content || out.Type != tc.kind || out.Word != tc.word {
			t.Errorf("stop %s: %+v", tc.stop, out)
		}
		_, stream, err := post(t.Context(), t, url+"/completion", `{"prompt":"x","stream":true,"stop":`+tc.stop+`}`)
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, e := range events(stream) {
			var ev event
			if err := json.Unmarshal([]byte(e), &ev); err != nil {
				t.Fatal(err)
			}
			text += ev.Content
		}
		if text != tc.content {
			t.Errorf("stop %s: the stream says %q", tc.stop, text)
		}
	}
}

// TestSlotsAreFreed checks that a client that leaves gives its slot back.
func TestSlotsAreFreed(t *testing.T) {
	s, url := serve(t, Script{Slots: 2, NeverEnds: true, TokenDelay: time.Millisecond})
	for range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(`{"prompt":"x","stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if s.Busy() == 0 {
			t.Error("no slot is busy")
		}
		cancel()
		_ = resp.Body.Close()
	}
	poll.Until(t, "idle slots", func() bool { return s.Busy() == 0 })
}

func TestLoadingAndHealth(t *testing.T) {
	_, url := serve(t, Script{LoadTime: 100 * time.Millisecond})
	if code, body := get(t, url+"/health"); code != 503 || body != `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}` {
		t.Errorf("loading: %d %s", code, body)
	}
	poll.Until(t, "a loaded model", func() bool {
		code, _ := get(t, url+"/health")
		return code == 200
	})
	if code, body := get(t, url+"/health"); code != 200 || body != `{"status":"ok"}` {
		t.Errorf("loaded: %d %s", code, body)
	}
	for health, want := range map[Health]int{HealthWrong: 200, HealthError: 500, HealthLoading: 503} {
		_, url := serve(t, Script{Health: health})
		if code, body := get(t, url+"/health"); code != want || strings.Contains(body, `"ok"`) {
			t.Errorf("%s: %d %s", health, code, body)
		}
		if code, _ := get(t, url+"/props"); code != 200 {
			t.Errorf("%s: the rest does not work: %d", health, code)
		}
	}
}

func TestOpenAIChat(t *testing.T) {
	_, url := serve(t, Script{Reply: "Hi 😀"})
	const msgs = `"messages":[{"role":"user","content":"x"}]`
	_, whole, err := post(t.Context(), t, url+"/v1/chat/completions", `{`+msgs+`}`)
	if err != nil || !strings.Contains(whole, `"content":"Hi 😀"`) || !strings.Contains(whole, `"finish_reason":"stop"`) {
		t.Errorf("%s, %v", whole, err)
	}
	_, stream, err := post(t.Context(), t, url+"/v1/chat/completions", `{"stream":true,"max_tokens":2,`+msgs+`}`)
	got := events(stream)
	if err != nil || len(got) < 4 || got[len(got)-1] != "[DONE]" || !strings.Contains(got[len(got)-2], `"finish_reason":"length"`) {
		t.Errorf("%s, %v", stream, err)
	}
}

func TestBadRequests(t *testing.T) {
	_, url := serve(t, Script{ContextLen: 50, Alternate: true})
	for _, tc := range []struct {
		path, body, want string
		code             int
	}{
		{"/completion", `{`, "parse_error", 500},
		{"/completion", `{"prompt":5}`, "elements must be", 400},
		{"/completion", `{}`, "elements must be", 400},
		{"/completion", `{"prompt":[1,99999]}`, "invalid tokens", 400},
		{"/completion", `{"prompt":"` + strings.Repeat("x", 60) + `"}`, "exceed_context_size_error", 400},
		{"/completion", `{"prompt":{"prompt_string":"x","multimodal_data":["AA"]}}`, "does not support multimodal", 400},
		{"/apply-template", `{"messages":[]}`, "non-empty", 400},
		{"/apply-template", `{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}`, "must alternate", 500},
		{"/apply-template", `{"messages":[{"role":"assistant","content":"a"}]}`, "must alternate", 500},
		{"/apply-template", `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`, "prompt", 200},
		{"/embeddings", `{"input":"x"}`, "--embeddings", 501},
		{"/rerank", `{"query":"x","documents":["y"]}`, "--reranking", 501},
		{"/slots/0?action=save", `{"filename":"x"}`, "--slot-save-path", 501},
		{"/detokenize", `{"tokens":[-1]}`, "not in the vocabulary", 500},
		{"/nowhere", `{}`, "File Not Found", 404},
	} {
		if code, got, err := post(t.Context(), t, url+tc.path, tc.body); err != nil || code != tc.code || !strings.Contains(got, tc.want) {
			t.Errorf("%s %.40s: %d %s, %v", tc.path, tc.body, code, got, err)
		}
	}
}
