package fakellama

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// wholes are requests for an answer without a stream, by their path.
func wholes() map[string]string {
	return map[string]string{
		"/completion":          `{"prompt":"x"}`,
		"/completions":         `{"prompt":["x","y"]}`,
		"/v1/completions":      `{"prompt":"x"}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"x"}]}`,
	}
}

// TestUnaryFaults checks that faults happen to an answer without a stream, too.
func TestUnaryFaults(t *testing.T) {
	const reply = "one two three 😀 four five"
	for name, tc := range map[string]struct {
		fault Fault
		code  int // 0: there is no answer
		bytes int // that come; 0: all or none
		holds string
	}{
		"status":     {Fault{Kind: KindStatus, Status: 503, Message: "busy"}, 503, 0, "busy"},
		"error":      {Fault{Kind: KindError, AfterTokens: 2, Status: 503, Message: "boom"}, 503, 0, `{"error":{"code":503,"message":"boom","type":"server_error"}}`},
		"crash":      {Fault{Kind: KindCrash, AfterTokens: 3}, 0, 0, ""},
		"cut":        {Fault{Kind: KindCut, AfterTokens: 3}, 0, 0, ""},
		"cut bytes":  {Fault{Kind: KindCut, AfterBytes: 9}, 200, 9, ""},
		"trickle":    {Fault{Kind: KindTrickle}, 200, 0, reply},
		"another's":  {Fault{Kind: KindCut, Request: 2}, 200, 0, reply},
		"too late":   {Fault{Kind: KindCut, AfterTokens: 500}, 200, 0, reply},
		"cut rune":   {Fault{Kind: KindCutRune}, 200, 0, reply},
		"no final":   {Fault{Kind: KindNoFinal}, 200, 0, reply},
		"oversize":   {Fault{Kind: KindOversize, Bytes: 1000}, 200, 0, reply},
		"garbage":    {Fault{Kind: KindGarbage}, 200, 0, reply},
		"at the end": {Fault{Kind: KindCut, AfterBytes: 1 << 20}, 200, 0, reply},
	} {
		for path, body := range wholes() {
			t.Run(name+path, func(t *testing.T) {
				srv, url := serve(t, Script{Slots: 2, Reply: reply, Faults: []Fault{tc.fault}})
				code, text, err := post(t.Context(), t, url+path, body)
				broken := tc.code == 0 || tc.bytes > 0
				if code != tc.code || err != nil != broken || !strings.Contains(text, tc.holds) || srv.Requests() != 1 {
					t.Errorf("%d %s, %v", code, text, err)
				}
				if broken && len(text) != tc.bytes || !broken && !json.Valid([]byte(text)) {
					t.Errorf("%d bytes: %s", len(text), text)
				}
			})
		}
	}
}

// TestUnaryStalls checks that nothing of an answer comes once nothing is decoded.
func TestUnaryStalls(t *testing.T) {
	for _, kind := range []Kind{KindStall, KindWedge} {
		for path, body := range wholes() {
			t.Run(string(kind)+path, func(t *testing.T) {
				s, url := serve(t, Script{Slots: 2, Faults: []Fault{{Kind: kind, AfterTokens: 1}}})
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-s.wedged
					cancel()
				}()
				if code, text, err := post(ctx, t, url+path, body); !errors.Is(err, context.Canceled) {
					t.Errorf("%d %s, %v", code, text, err)
				}
				cancel()
				if s.frozen == nil != (kind == KindWedge) {
					t.Errorf("the slots: %v", s.frozen)
				}
			})
		}
	}
}

// TestUnaryHangsAtTheEnd checks that the whole answer comes, and not its end.
func TestUnaryHangsAtTheEnd(t *testing.T) {
	for path, body := range wholes() {
		t.Run(path, func(t *testing.T) {
			s, url := serve(t, Script{Slots: 2, Reply: "one two", Faults: []Fault{{Kind: KindHangEnd}}})
			resp, err := http.Post(url+path, "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			var got []byte
			for buf := make([]byte, 64); !json.Valid(got); {
				n, err := resp.Body.Read(buf)
				if got = append(got, buf[:n]...); err != nil {
					t.Fatalf("%s, %v", got, err)
				}
			}
			s.Close()
			if rest, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("then came %q, %v", rest, err)
			}
		})
	}
}

// writes counts how an answer is written.
type writes struct {
	*httptest.ResponseRecorder
	count int
}

func (w *writes) Write(b []byte) (int, error) {
	w.count++
	return w.ResponseRecorder.Write(b)
}

func TestUnaryTrickles(t *testing.T) {
	for path, body := range wholes() {
		s := New(Script{Slots: 2, Reply: "one two", Faults: []Fault{{Kind: KindTrickle}}})
		w := &writes{ResponseRecorder: httptest.NewRecorder()}
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
		if n := w.Body.Len(); n < 20 || w.count != n {
			t.Errorf("%s: %d bytes in %d writes", path, n, w.count)
		}
	}
}
