package llamaapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// TestStopStringHoldsBackText checks that a stream ends with the whole text of the
// completion, wherever it ends, although the server does not report text that might have
// become a stop string.
func TestStopStringHoldsBackText(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Reply: "a. b, 😀 c.\n d, 😀e"})
	zero, heldBack := float32(0), 0
	for _, stop := range [][]string{{"\n\n"}, {". x", ", x", "e!"}, {" b, x"}, {" c.\n x"}, {"😀!", ", 😀?"}, {"c", "d"}} {
		for most := 1; most < 20; most++ {
			req := text("x")
			req.Temperature, req.MaxTokens, req.Stop = &zero, &most, stop
			whole, err := c.Complete(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got, ids := read(t, c, req)
			if want := strings.TrimRight(whole[0].Text, "\ufffd"); got != want {
				t.Errorf("stop %q, %d tokens: the stream says %q, the whole %q", stop, most, got, want)
			}
			if whole[0].Reason != llamaapi.StopLimit {
				continue
			}
			if want := whole[0].Tokens; got == whole[0].Text && !slices.Equal(ids, want) {
				t.Errorf("stop %q, %d tokens: the stream has the ids %v, the whole %v", stop, most, ids, whole[0].Tokens)
			}
			heldBack++
			// The same end, with an id that belongs to the next token.
			more := most + 1
			req.MaxTokens = &more
			if whole, err = c.Complete(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if next := whole[0].Tokens[len(whole[0].Tokens)-1]; whole[0].Reason != llamaapi.StopEOS && !slices.Contains(ids, next) {
				req.StopIDs = []int32{next}
				if stopped, _ := read(t, c, req); stopped != got {
					t.Errorf("stop %q, id %d: the stream says %q, up to there it was %q", stop, next, stopped, got)
				}
			}
		}
	}
	if heldBack < 50 {
		t.Errorf("only %d completions ended at the limit", heldBack)
	}
}

// TestHeldBackTextOfTokens ends a stream with tokens that have no text.
func TestHeldBackTextOfTokens(t *testing.T) {
	const a, newline, lead = 3 + 'a', 3 + '\n', 3 + 0xc3 // in fakellama's vocabulary
	for _, tc := range []struct {
		name   string
		ids    []int32
		broken string // path that fails
		want   []llamaapi.Token
	}{
		{"two", []int32{a, newline, newline}, "", []llamaapi.Token{{ID: a, Text: "a"}, {ID: newline}, {ID: newline, Text: "\n\n"}}},
		{"none has a text", []int32{a, fakellama.TokenTurn}, "", []llamaapi.Token{{ID: a, Text: "a"}, {ID: fakellama.TokenTurn}}},
		{
			"one without a text among them",
			[]int32{a, newline, fakellama.TokenTurn, newline, fakellama.TokenTurn},
			"",
			[]llamaapi.Token{{ID: a, Text: "a"}, {ID: newline}, {ID: fakellama.TokenTurn}, {ID: newline, Text: "\n\n"}, {ID: fakellama.TokenTurn}},
		},
		{"started rune", []int32{a, newline, lead}, "", []llamaapi.Token{{ID: a, Text: "a"}, {ID: newline}, {ID: lead, Text: "\n"}}},
		{"no detokenizer", []int32{a, newline}, "/detokenize", []llamaapi.Token{{ID: a, Text: "a"}, {ID: newline}}},
		{"no tokenizer", []int32{a, newline}, "/tokenize", []llamaapi.Token{{ID: a, Text: "a"}, {ID: newline}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := fakellama.New(fakellama.Script{})
			defer f.Close()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case tc.broken:
					http.Error(w, "out of order", http.StatusInternalServerError)
				case "/completion":
					for i, id := range tc.ids {
						content := ""
						if id == a {
							content = "a"
						}
						_, _ = fmt.Fprintf(w, "data: {\"content\":%q,\"tokens\":[%d],\"tokens_predicted\":%d}\n\n", content, id, i+1)
					}
					_, _ = fmt.Fprintf(w, "data: {\"stop\":true,\"tokens_predicted\":%d,\"stop_type\":\"limit\"}\n\n", len(tc.ids))
				default:
					f.ServeHTTP(w, r)
				}
			}))
			defer srv.Close()
			req := text("x")
			req.Stop = []string{"\n\n\n"}
			s, err := llamaapi.New(srv.URL, srv.Client()).Completion(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Collect(s.All()); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			var api *llamaapi.APIError
			if broken := errors.As(s.Err(), &api); broken != (tc.broken != "") || !broken && s.Err() != nil {
				t.Errorf("err = %v", s.Err())
			}
		})
	}
}
