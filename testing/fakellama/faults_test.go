package fakellama

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

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
