package fakellama

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

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

// TestFaults checks that each fault happens where and when the script says.
func TestFaults(t *testing.T) {
	const body = `{"prompt":"x","stream":true,"n_predict":10,"temperature":0}`
	clean := func() string {
		_, url := serve(t, Script{NeverEnds: true})
		_, stream, err := post(t.Context(), t, url+"/completion", body)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}()
	run := func(t *testing.T, f Fault) (int, string, error) {
		t.Helper()
		_, url := serve(t, Script{NeverEnds: true, Faults: []Fault{f}})
		return post(t.Context(), t, url+"/completion", body)
	}
	// hung runs a fault that hangs: it leaves once the stream shows what it must,
	// and a little later, when more would have come.
	hung := func(t *testing.T, f Fault, shows func(string) bool) (string, error) {
		t.Helper()
		_, url := serve(t, Script{NeverEnds: true, Faults: []Fault{f}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if shows == nil {
			defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		var got strings.Builder
		buf := make([]byte, 64)
		for {
			n, err := resp.Body.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				return got.String(), err
			}
			if shows(got.String()) {
				defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
			}
		}
	}
	for _, n := range []int{1, 7, 100, 101, 333} {
		if _, got, err := run(t, Fault{Kind: KindCut, AfterBytes: n}); err == nil || got != clean[:n] {
			t.Errorf("cut at %d: %d bytes, %v", n, len(got), err)
		}
	}
	for _, kind := range []Kind{KindCut, KindCrash} {
		if _, got, err := run(t, Fault{Kind: kind, AfterTokens: 3}); err == nil || len(events(got)) != 3 {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
	three := func(got string) bool { return len(events(got)) == 3 && strings.HasSuffix(got, "\n\n") }
	for _, kind := range []Kind{KindStall, KindWedge} {
		if got, err := hung(t, Fault{Kind: kind, AfterTokens: 3}, three); !errors.Is(err, context.Canceled) || len(events(got)) != 3 {
			t.Errorf("%s: %d events, %v", kind, len(events(got)), err)
		}
	}
	if _, got, err := run(t, Fault{Kind: KindCutRune, AfterTokens: 2}); err == nil || utf8.ValidString(got) {
		t.Errorf("cut rune: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindNoFinal, AfterTokens: 3}); err != nil || len(events(got)) != 3 || strings.Contains(got, `"stop":true`) {
		t.Errorf("no final event: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindNoFinal}); err != nil || len(events(got)) == 0 || strings.Contains(got, `"stop":true`) {
		t.Errorf("no final event at the end: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindOversize, Bytes: 100_000}); err != nil || !strings.Contains(got, strings.Repeat("x", 100_000)) {
		t.Errorf("oversize: %d bytes, %v", len(got), err)
	}
	if _, got, err := run(t, Fault{Kind: KindGarbage, AfterTokens: 1}); err != nil || json.Valid([]byte(events(got)[1])) {
		t.Errorf("garbage: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindError, AfterTokens: 2, Status: 500, Message: "boom"}); err != nil ||
		events(got)[2] != `{"error":{"code":500,"message":"boom","type":"server_error"}}` || len(events(got)) != 3 {
		t.Errorf("error event: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindTrickle}); err != nil || len(got) < 500 {
		t.Errorf("trickle: %q, %v", got, err)
	}
	final := func(got string) bool { return strings.Contains(got, `"stop":true`) }
	if got, err := hung(t, Fault{Kind: KindHangEnd}, final); !errors.Is(err, context.Canceled) || !final(got) {
		t.Errorf("hang at the end: %q, %v", got, err)
	}
	if _, err := hung(t, Fault{Kind: KindNoAnswer}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("no answer: %v", err)
	}
	if code, got, err := run(t, Fault{Kind: KindStatus, Status: 503, Type: "unavailable_error", Message: "busy"}); err != nil || code != 503 || !strings.Contains(got, "busy") {
		t.Errorf("status: %d %q, %v", code, got, err)
	}
	// In the place of the final event.
	last := len(events(clean)) - 1
	if _, got, err := run(t, Fault{Kind: KindError, AfterTokens: last}); err != nil || len(events(got)) != last+1 || !strings.HasPrefix(events(got)[last], `{"error"`) {
		t.Errorf("error event at the end: %q, %v", got, err)
	}
	if _, got, err := run(t, Fault{Kind: KindNoFinal, AfterTokens: last}); err != nil || len(events(got)) != last {
		t.Errorf("no final event, late: %q, %v", got, err)
	}
	// Only the second request.
	_, url := serve(t, Script{Faults: []Fault{{Kind: KindStatus, Status: 500, Request: 2}}})
	for i, want := range []int{200, 500, 200} {
		if code, _, err := post(t.Context(), t, url+"/completion", body); err != nil || code != want {
			t.Errorf("request %d: %d, %v", i+1, code, err)
		}
	}
}

// TestWedged checks what makes a wedged server hard to detect: /health answers 200, and
// /slots returns the same state for ever, or hangs.
func TestWedged(t *testing.T) {
	for _, kind := range []Kind{KindStall, KindWedge} {
		s, url := serve(t, Script{Reply: "each letter is a token", NeverEnds: true, Slots: 2, Faults: []Fault{{Kind: kind, AfterTokens: 1, Request: 1}}})
		ask := func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-s.wedged
				time.AfterFunc(20*time.Millisecond, cancel)
			}()
			if _, _, err := post(ctx, t, url+"/completion", `{"prompt":"x","stream":true}`); !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		ask()
		first, err := askSlots(t, url, kind)
		if kind == KindWedge != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: /slots %q, %v", kind, first, err)
		}
		ask() // nobody's fault, and yet
		poll.Until(t, "idle slots", func() bool { return s.Busy() == 0 })
		if again, _ := askSlots(t, url, kind); again != first || kind == KindStall && !strings.Contains(again, `"n_decoded":2`) {
			t.Errorf("%s: /slots\n%s, before\n%s", kind, again, first)
		}
		if code, _ := get(t, url+"/health"); code != 200 {
			t.Errorf("%s: health: %d", kind, code)
		}
	}
}

// askSlots asks for them, with little patience where no answer is to come.
func askSlots(t *testing.T, url string, wedged Kind) (string, error) {
	t.Helper()
	patience := time.Minute
	if wedged == KindWedge {
		patience = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/slots", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	return string(raw), err
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

func TestInvalidScripts(t *testing.T) {
	fault := func(f Fault) Script { return Script{Faults: []Fault{f}} }
	for name, tc := range map[string]struct {
		script Script
		want   string
	}{
		"slots":                 {Script{Slots: -1}, "slots is negative"},
		"time":                  {Script{TokenDelay: -1}, "token_delay is negative"},
		"health":                {Script{Health: "odd"}, "unknown health"},
		"kind":                  {fault(Fault{Kind: "odd"}), "unknown kind"},
		"no bytes":              {fault(Fault{Kind: KindOversize}), "set its bytes"},
		"bytes":                 {fault(Fault{Kind: KindCut, Bytes: -1}), "fault 0 (cut): bytes is negative"},
		"request":               {fault(Fault{Kind: KindCut, Request: -1}), "request is negative"},
		"after tokens":          {fault(Fault{Kind: KindCut, AfterTokens: -1}), "after_tokens is negative"},
		"after bytes":           {fault(Fault{Kind: KindCut, AfterBytes: -1}), "after_bytes is negative"},
		"success":               {fault(Fault{Kind: KindStatus, Status: 200}), "no error status"},
		"no status":             {fault(Fault{Kind: KindStatus}), "no error status"},
		"success as error":      {fault(Fault{Kind: KindError, Status: 200}), "no error status"},
		"bytes of an error":     {fault(Fault{Kind: KindError, AfterBytes: 9}), "after_bytes is for cut, crash, stall and wedge"},
		"bytes of a rune":       {fault(Fault{Kind: KindCutRune, AfterBytes: 9}), "after_bytes is for"},
		"bytes of a flood":      {fault(Fault{Kind: KindFlood, Bytes: 1, AfterBytes: 9}), "after_bytes is for"},
		"place of a flood":      {fault(Fault{Kind: KindFlood, Bytes: 1, AfterTokens: 9}), "it has no place"},
		"place of a status":     {fault(Fault{Kind: KindStatus, Status: 500, AfterTokens: 9}), "it has no place"},
		"place of no answer":    {fault(Fault{Kind: KindNoAnswer, AfterTokens: 9}), "it has no place"},
		"place of a trickle":    {fault(Fault{Kind: KindTrickle, AfterTokens: 9}), "it has no place"},
		"place of the end":      {fault(Fault{Kind: KindHangEnd, AfterTokens: 9}), "it has no place"},
		"unknown signal":        {fault(Fault{Kind: KindCrash, Signal: 999}), "signal 999 ends no process"},
		"negative signal":       {fault(Fault{Kind: KindCrash, Signal: -9}), "signal -9 ends no process"},
		"harmless signal":       {fault(Fault{Kind: KindCrash, Signal: int(syscall.SIGCHLD)}), "ends no process"},
		"signal of a cut":       {fault(Fault{Kind: KindCut, Signal: 9}), "signal is for crash"},
		"unknown exit signal":   {Script{Process: Process{ExitEarly: true, ExitSignal: 999}}, "exit_signal: signal 999 ends no process"},
		"harmless exit signal":  {Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGCHLD)}}, "ends no process"},
		"stopping exit signal":  {Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGSTOP)}}, "ends no process"},
		"exit code":             {Script{Process: Process{ExitEarly: true, ExitCode: 256}}, "exit_code 256 is not within 0 and 255"},
		"exit without its time": {Script{Process: Process{ExitSignal: 9}}, "set exit_early or exit_after_load"},
		"flood":                 {Script{Process: Process{FloodBytes: -1}}, "flood_bytes is negative"},
	} {
		if err := tc.script.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got %v", name, tc.want, err)
		}
		if _, err := tc.script.Env(); err == nil {
			t.Errorf("%s: it can be given to a process", name)
		}
	}
	entry, err := Script{Slots: 2, LoadTime: time.Second, Process: Process{IgnoreSIGTERM: true}}.Env()
	if want := EnvScript + `={"slots":2,"load_time":1000000000,"process":{"ignore_sigterm":true}}`; err != nil || entry != want {
		t.Errorf("%s, %v", entry, err)
	}
}

func TestFlags(t *testing.T) {
	a, err := parseArgs([]string{
		"--host", "/run/x.sock", "-m", "m.gguf", "-np", "3", "-c", "900", "-ngl", "99", "--no-ui", "-fa", "on",
		"--lora", "a.gguf", "--slot-save-path", "/s", "--control-vector-layer-range", "1", "2", "--jinja", "--embedding",
	}, nil)
	if err != nil || a.host != "/run/x.sock" || a.model != "m.gguf" || a.slots != 3 || a.context != 900 || !a.embeddings || a.slotSave != "/s" {
		t.Errorf("%+v, %v", a, err)
	}
	if s := merge(Script{}, a); s.Slots != 3 || s.ContextLen != 300 || !s.SlotSave || s.Adapters[0] != "a.gguf" {
		t.Errorf("script %+v", s)
	}
	for want, argv := range map[string][]string{
		"error: invalid argument: --nope":                                 {"--nope"},
		`error while handling argument "-m": expected value for argument`: {"-m"},
		`error while handling argument "-c"`:                              {"-c", "abc"},
	} {
		if _, err := parseArgs(argv, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v", argv, err)
		}
	}
	if _, err := parseArgs([]string{"-fa", "on"}, []string{"-fa"}); err == nil {
		t.Error("a flag that an old server lacks is taken")
	}
	var b bytes.Buffer
	if err := help(&b, []string{"-fa", "--flash-attn"}); err != nil || strings.Contains(b.String(), "--flash-attn") || !strings.Contains(b.String(), "-ngl,") {
		t.Errorf("help, %v:\n%.300s", err, b.String())
	}
}
