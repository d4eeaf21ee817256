package fakellama

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestChatFaults checks that a chat completion is one as every other: it counts,
// and what the script has for it happens.
func TestChatFaults(t *testing.T) {
	const body = `{"stream":true,"messages":[{"role":"user","content":"x"}]}`
	const done = "[DONE]"
	chat := func(ctx context.Context, t *testing.T, s Script) (srv *Server, code int, text string, err error) {
		t.Helper()
		s.Reply = "one two three 😀 four five"
		srv, url := serve(t, s)
		code, text, err = post(ctx, t, url+"/v1/chat/completions", body)
		return srv, code, text, err
	}
	srv, _, clean, err := chat(t.Context(), t, Script{})
	all := events(clean)
	if err != nil || srv.Requests() != 1 || all[len(all)-1] != done {
		t.Fatalf("%d requests, %q, %v", srv.Requests(), all, err)
	}
	for name, tt := range map[string]struct {
		fault Fault
		count int    // of events
		holds string // the stream
		whole bool   // it ends in good order
	}{
		"status":          {Fault{Kind: KindStatus, Status: 503, Message: "busy"}, 0, `"message":"busy"`, true},
		"error":           {Fault{Kind: KindError, AfterTokens: 2, Message: "boom"}, 3, `{"error":{"code":500,"message":"boom","type":"server_error"}}`, true},
		"crash":           {Fault{Kind: KindCrash, AfterTokens: 3}, 3, "", false},
		"cut":             {Fault{Kind: KindCut, AfterTokens: 3}, 3, "", false},
		"cut bytes":       {Fault{Kind: KindCut, AfterBytes: len("data: ")}, 1, "data: ", false},
		"cut rune":        {Fault{Kind: KindCutRune, AfterTokens: 2}, 3, "", false},
		"no final":        {Fault{Kind: KindNoFinal}, len(all) - 2, "", true},
		"no final, early": {Fault{Kind: KindNoFinal, AfterTokens: 3}, 3, "", true},
		"oversize":        {Fault{Kind: KindOversize, Bytes: 100_000}, len(all) + 1, `"delta":{"content":"` + strings.Repeat("x", 100_000) + `"}`, true},
		"garbage":         {Fault{Kind: KindGarbage, AfterTokens: 1}, len(all) + 1, `{"content": "unfinished`, true},
		"trickle":         {Fault{Kind: KindTrickle}, len(all), done, true},
		"another's":       {Fault{Kind: KindCut, Request: 2}, len(all), done, true},
	} {
		t.Run(name, func(t *testing.T) {
			srv, code, text, err := chat(t.Context(), t, Script{Faults: []Fault{tt.fault}})
			if got := events(text); len(got) != tt.count || !strings.Contains(text, tt.holds) || err == nil != tt.whole || srv.Requests() != 1 {
				t.Errorf("%d, %d events, want %d: %.2000q, %v", code, len(got), tt.count, text, err)
			}
			if strings.Contains(text, done) != (tt.count >= len(all)) {
				t.Errorf("the end: %.2000q", text)
			}
		})
	}
	if _, _, text, err := chat(t.Context(), t, Script{CRLF: true}); err != nil || !strings.HasSuffix(text, "data: [DONE]\r\n\r\n") || strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Errorf("CR LF: %q, %v", text, err)
	}
	for _, kind := range []Kind{KindNoAnswer, KindStall, KindWedge, KindHangEnd} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, _, _, err := chat(ctx, t, Script{Faults: []Fault{{Kind: kind}}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", kind, err)
		}
		cancel()
	}
	// Completions and chats are counted together.
	_, url := serve(t, Script{Faults: []Fault{{Kind: KindStatus, Status: 500, Request: 2}}})
	for i, want := range []int{200, 500, 200} {
		path, ask := "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`
		if i == 0 {
			path, ask = "/completion", `{"prompt":"x"}`
		}
		if code, _, err := post(t.Context(), t, url+path, ask); err != nil || code != want {
			t.Errorf("request %d: %d, %v", i+1, code, err)
		}
	}
}
