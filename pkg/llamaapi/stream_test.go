package llamaapi

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// replay returns a client of a server that answers /completion with a recorded stream, and
// /tokenize with recorded pieces.
func replay(t *testing.T, stream []byte, pieces map[string]string) *Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			for text, answer := range pieces {
				if strings.Contains(string(body), `"`+text+`"`) {
					_, _ = io.WriteString(w, answer)
					return
				}
			}
			http.Error(w, "no such text", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(stream)
	}))
	t.Cleanup(srv.Close)
	return New(srv.URL, srv.Client())
}

// request returns a minimal request.
func request() *CompletionRequest {
	return &CompletionRequest{Prompts: []Prompt{TextPrompt("x")}}
}

// drain reads a completion to its end.
func drain(t *testing.T, c *Client, r *CompletionRequest) ([]Token, *Stream) {
	t.Helper()
	s, err := c.Completion(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(s.All()), s
}

func TestRecordedStreams(t *testing.T) {
	files, err := filepath.Glob("testdata/v0.5.0/*.sse")
	if err != nil || len(files) < 6 {
		t.Fatalf("recorded streams: %d, %v", len(files), err)
	}
	pieces := map[string]string{
		"😁": `{"tokens":[{"id":10813,"piece":[240,159]},{"id":242,"piece":[152]},{"id":219,"piece":[129]}]}`,
		"😆": `{"tokens":[{"id":10813,"piece":[240,159]},{"id":242,"piece":[152]},{"id":224,"piece":[134]}]}`,
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			stream, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			req := request()
			if strings.Contains(file, "stopword") {
				req.Stop = []string{"small town"}
			}
			var out strings.Builder
			s, err := replay(t, stream, pieces).Completion(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			s.OnProgress(func(p Progress) { fmt.Fprintf(&out, "progress %+v\n", p) })
			for s.Next() {
				fmt.Fprintf(&out, "%d %q", s.Token().ID, s.Token().Text)
				for _, p := range s.Positions() {
					fmt.Fprintf(&out, " %+v", p)
				}
				out.WriteByte('\n')
			}
			fmt.Fprintf(&out, "final %+v\nerr %v\n", s.Final(), s.Err())
			golden := strings.TrimSuffix(file, ".sse") + ".tokens"
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

// ev returns a token event; n is the number of tokens so far.
func ev(n int, id int32, text string) string {
	return fmt.Sprintf("data: {\"index\":0,\"content\":%q,\"tokens\":[%d],\"stop\":false,\"tokens_predicted\":%d,\"tokens_evaluated\":3}\n\n", text, id, n)
}

// fin returns a final event.
func fin(n int, reason string) string {
	return fmt.Sprintf("data: {\"content\":\"\",\"tokens\":[],\"stop\":true,\"tokens_predicted\":%d,\"stop_type\":%q}\n\n", n, reason)
}

func TestStreamEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stream string
		stop   []string
		ids    []int32
		want   []Token
		reason StopReason
		lost   int
	}{
		{
			"limit", ev(1, 5, "a") + ev(2, 6, "b") + fin(2, "limit"), nil, nil,
			[]Token{{5, "a"}, {6, "b"}},
			StopLimit, 0,
		},
		{
			"eos is not yielded", ev(1, 5, "a") + ev(2, 2, "") + fin(2, "eos"), nil, nil,
			[]Token{{5, "a"}},
			StopEOS, 0,
		},
		{
			"eos alone", ev(1, 2, "") + fin(1, "eos"), nil, nil,
			nil, StopEOS, 0,
		},
		{
			"a token without text is yielded", ev(1, 9, "") + ev(2, 6, "b") + ev(3, 9, "") + fin(3, "limit"), nil, nil,
			[]Token{{9, ""}, {6, "b"}, {9, ""}},
			StopLimit, 0,
		},
		{
			"stop text over two tokens", ev(1, 5, "a") + ev(2, 6, "") + ev(3, 7, "") + fin(3, "word"),
			[]string{"xy"},
			nil,
			[]Token{{5, "a"}},
			StopWord, 0,
		},
		{
			"no stop text after all", ev(1, 5, "a") + ev(2, 6, "") + ev(3, 7, " xz") + ev(4, 8, "c") + fin(4, "limit"),
			[]string{"xy"},
			nil,
			[]Token{{5, "a"}, {6, ""}, {7, " xz"}, {8, "c"}},
			StopLimit, 0,
		},
		{
			"held-back text comes with eos", ev(1, 5, "a") + ev(2, 6, "") + ev(3, 2, "x") + fin(3, "eos"),
			[]string{"xy"},
			nil,
			[]Token{{5, "a"}, {6, "x"}},
			StopEOS, 0,
		},
		{
			"stop id", ev(1, 5, "a") + ev(2, 6, "b") + ev(3, 7, "c"), nil,
			[]int32{9, 6},
			[]Token{{5, "a"}},
			StopID, 0,
		},
		{
			"stop id first", ev(1, 5, "a"), nil,
			[]int32{5},
			nil, StopID, 0,
		},
		{
			"stop id after a held-back token", ev(1, 9, "") + ev(2, 5, "a"), nil,
			[]int32{5},
			[]Token{{9, ""}},
			StopID, 0,
		},
		{
			"rune over three tokens", ev(1, 5, "a") + ev(4, 8, "é") + ev(5, 6, "b") + fin(5, "limit"), nil, nil,
			[]Token{{5, "a"}, {20, ""}, {21, ""}, {8, "é"}, {6, "b"}},
			StopLimit, 0,
		},
		{
			"stop id inside a rune", ev(1, 5, "a") + ev(4, 8, "é"), nil,
			[]int32{21},
			[]Token{{5, "a"}, {20, ""}},
			StopID, 0,
		},
		{
			"rune that cannot be found", ev(1, 5, "a") + ev(3, 99, "é") + fin(3, "limit"), nil, nil,
			[]Token{{5, "a"}, {99, "é"}},
			StopLimit, 1,
		},
		{
			"rune unknown to the tokenizer", ev(2, 8, "ü") + fin(2, "limit"), nil, nil,
			[]Token{{8, "ü"}},
			StopLimit, 1,
		},
		{
			"end in mid-rune", ev(1, 5, "a") + fin(3, "limit"), nil, nil,
			[]Token{{5, "a"}},
			StopLimit, 2,
		},
		{
			"pings, comments, null, crlf", ":\n\ndata: null\n\n" + strings.ReplaceAll(ev(1, 5, "a"), "\n", "\r\n") + ": x\n" + ev(2, 6, "b") + ":\n\n" + fin(2, "limit"), nil, nil,
			[]Token{{5, "a"}, {6, "b"}},
			StopLimit, 0,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := replay(t, []byte(tc.stream), map[string]string{
				"é": `{"tokens":[{"id":19,"piece":" "},{"id":20,"piece":[195]},{"id":21,"piece":""},{"id":8,"piece":[169]}]}`,
			})
			req := request()
			req.Stop, req.StopIDs = tc.stop, tc.ids
			got, s := drain(t, c, req)
			if s.Err() != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v, %v; want %v", got, s.Err(), tc.want)
			}
			if f := s.Final(); f.Reason != tc.reason || f.LostTokens != tc.lost {
				t.Errorf("final %+v, want reason %s and %d lost", f, tc.reason, tc.lost)
			}
		})
	}
}

// TestStreamErrors checks that every end other than a well-formed one is an error.
func TestStreamErrors(t *testing.T) {
	for _, tc := range []struct {
		name, stream string
		want         error
	}{
		{"no event", "", ErrTruncated},
		{"no final event", ev(1, 5, "a"), ErrTruncated},
		{"done of another protocol", ev(1, 5, "a") + "data: [DONE]\n\n", ErrMalformed},
		{"cut in an event", ev(1, 5, "a") + ev(2, 6, "b")[:30], ErrTruncated},
		{"cut before the blank line", ev(1, 5, "a") + strings.TrimSuffix(fin(1, "limit"), "\n"), ErrTruncated},
		{"no json", "data: {\"content\n\n", ErrMalformed},
		{"text without ids", "data: {\"content\":\"old\",\"stop\":false}\n\n", ErrMalformed},
		{"bad timings", "data: {\"stop\":true,\"timings\":[]}\n\n", ErrMalformed},
		{"bad error", "data: {\"error\":5}\n\n", ErrMalformed},
		{"bad probabilities", "data: {\"content\":\"a\",\"tokens\":[1],\"tokens_predicted\":1,\"completion_probabilities\":{}}\n\n", ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, s := drain(t, replay(t, []byte(tc.stream), nil), request())
			if !errors.Is(s.Err(), tc.want) {
				t.Errorf("err = %v, want %v", s.Err(), tc.want)
			}
			if s.Next() {
				t.Error("it goes on after an error")
			}
		})
	}
}

func TestStreamServerError(t *testing.T) {
	got, s := drain(t, replay(t, []byte(ev(1, 5, "a")+`data: {"error":{"code":500,"message":"context shift is disabled","type":"server_error"}}`+"\n\n"), nil), request())
	var api *APIError
	if !errors.As(s.Err(), &api) || api.Status != 500 || api.Type != "server_error" || api.Message != "context shift is disabled" {
		t.Errorf("err = %#v", s.Err())
	}
	if len(got) != 1 {
		t.Errorf("the token before the error is lost: %v", got)
	}
}

// TestBrokenStreamKeepsItsText checks that received text is returned before the error, also
// if it had to wait for the next event.
func TestBrokenStreamKeepsItsText(t *testing.T) {
	for name, tc := range map[string]struct {
		stream string
		want   []Token
		err    error
	}{
		"cut":             {ev(1, 5, "one ") + ev(2, 6, "") + ev(3, 7, "xa"), []Token{{5, "one "}, {6, ""}, {7, "xa"}}, ErrTruncated},
		"server's error":  {ev(1, 6, "") + ev(2, 7, "xa") + "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"code\":500}}\n\n", []Token{{6, ""}, {7, "xa"}}, nil},
		"nonsense":        {ev(1, 6, "") + ev(2, 7, "xa") + "data: {\n\n", []Token{{6, ""}, {7, "xa"}}, ErrMalformed},
		"nothing with it": {ev(1, 5, "one ") + ev(2, 6, ""), []Token{{5, "one "}}, ErrTruncated},
	} {
		req := request()
		req.Stop = []string{"xb"}
		got, s := drain(t, replay(t, []byte(tc.stream), nil), req)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
		if s.Err() == nil || tc.err != nil && !errors.Is(s.Err(), tc.err) {
			t.Errorf("%s: error %v", name, s.Err())
		}
	}
}

// TestStreamWithoutItsEnd checks that a stream does not wait for a server that sends the
// final event but never ends its answer.
func TestStreamWithoutItsEnd(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, ev(1, 5, "a")+fin(1, "limit"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	got, s := drain(t, New(srv.URL, srv.Client()), request())
	if s.Err() != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, s.Err())
	}
}

func TestStreamTimings(t *testing.T) {
	_, s := drain(t, replay(t, []byte(ev(1, 5, "a")+fin(1, "limit")), nil), request())
	if s.FirstToken() <= 0 {
		t.Errorf("first token after %v", s.FirstToken())
	}
}
