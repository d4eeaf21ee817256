package llamaapi_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// fake starts a fakellama server and returns a client of it.
func fake(t *testing.T, script fakellama.Script, opts ...llamaapi.Option) (*llamaapi.Client, *fakellama.Server) {
	t.Helper()
	f := fakellama.New(script)
	srv := httptest.NewServer(f)
	t.Cleanup(func() {
		f.Close()
		srv.Close()
	})
	return llamaapi.New(srv.URL, srv.Client(), opts...), f
}

// recorded returns a client of a server that answers every request with a recording.
func recorded(t *testing.T, status int, file string) *llamaapi.Client {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "v0.5.0", file))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return llamaapi.New(srv.URL, srv.Client())
}

func text(s string) *llamaapi.CompletionRequest {
	return &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt(s)}}
}

func TestRecordedResponses(t *testing.T) {
	ctx := t.Context()
	p, err := recorded(t, 200, "props.json").Props(ctx)
	if err != nil || p.TotalSlots != 2 || p.Defaults.ContextLen != 512 || p.ModelAlias != "smollm2-135m" ||
		p.EOSToken != "<|im_end|>" || !strings.Contains(p.ChatTemplate, "im_start") || p.MediaMarker == "" {
		t.Errorf("props %+v, %v", p, err)
	}
	slots, err := recorded(t, 200, "slots.json").Slots(ctx)
	if err != nil || len(slots) != 2 || slots[0].ContextLen != 512 || slots[0].Processing || slots[0].Task != 49 {
		t.Errorf("slots %+v, %v", slots, err)
	}
	saved, err := recorded(t, 200, "save.json").SaveSlot(ctx, 0, "a.bin")
	if err != nil || saved.Tokens != 3 || saved.Bytes != 69936 || saved.Name != "a.bin" || saved.Duration != 753*time.Microsecond {
		t.Errorf("save %+v, %v", saved, err)
	}
	restored, err := recorded(t, 200, "restore.json").RestoreSlot(ctx, 0, "a.bin")
	if err != nil || restored.Tokens != 3 || restored.Bytes != 69936 {
		t.Errorf("restore %+v, %v", restored, err)
	}
	if n, err := recorded(t, 200, "erase.json").EraseSlot(ctx, 0); err != nil || n != 3 {
		t.Errorf("erase %d, %v", n, err)
	}
	pieces, err := recorded(t, 200, "pieces.json").TokenizePieces(ctx, " 😀", llamaapi.TokenizeOptions{})
	if err != nil || len(pieces) != 2 || !bytes.Equal(append(pieces[0].Bytes, pieces[1].Bytes...), []byte(" 😀")) {
		t.Errorf("pieces %v, %v", pieces, err)
	}
	batch, err := recorded(t, 200, "batch.json").Complete(ctx, &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{llamaapi.TextPrompt("One"), llamaapi.TextPrompt("Two words")},
	})
	if err != nil || len(batch) != 2 || batch[0].Text != "-to-" || batch[1].Text != ", and the" ||
		!slices.Equal(batch[0].Tokens, []int32{29, 1141, 29}) || batch[1].Index != 1 || batch[0].Reason != llamaapi.StopLimit {
		t.Errorf("batch %+v, %v", batch, err)
	}
	post, err := recorded(t, 200, "post.json").Complete(ctx, text("Once upon"))
	if err != nil || len(post) != 1 || len(post[0].Positions) != 2 || len(post[0].Positions[0].Top) == 0 || post[0].Positions[0].LogProb > 0 {
		t.Errorf("post-sampling probabilities %+v, %v", post, err)
	}
}

func TestRecordedErrors(t *testing.T) {
	_, err := recorded(t, 400, "context.json").Completion(t.Context(), text("x"))
	var api *llamaapi.APIError
	if !errors.As(err, &api) || api.Status != 400 || api.PromptTokens != 705 || api.ContextLen != 512 ||
		!errors.Is(err, llamaapi.ErrContextExceeded) || !errors.Is(err, llamaapi.ErrInvalidRequest) {
		t.Errorf("context: %#v", err)
	}
	if !strings.Contains(err.Error(), "705") || !strings.Contains(err.Error(), "longer context") {
		t.Errorf("context: %v does not say what to do", err)
	}
	_, err = recorded(t, 501, "noembed.json").Embeddings(t.Context(), []llamaapi.Prompt{llamaapi.TextPrompt("x")})
	if !errors.Is(err, llamaapi.ErrNotSupported) || !strings.Contains(err.Error(), "--embeddings") {
		t.Errorf("embeddings: %v", err)
	}
}

func TestErrorsOfOtherServers(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"a proxy's page", "<html>Bad Gateway</html>", 502, "<html>Bad Gateway</html> (status 502)"},
		{"nothing", "", 503, "Service Unavailable (status 503)"},
		{"too much", strings.Repeat("é", 500), 500, strings.Repeat("é", 100) + "… (status 500)"},
		{"error of another form", `{"error":"text"}`, 500, `{"error":"text"} (status 500)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			}))
			defer srv.Close()
			err := llamaapi.New(srv.URL, srv.Client()).Health(t.Context())
			if err == nil || !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	c, _ := fake(t, fakellama.Script{})
	if err := c.Health(t.Context()); err != nil {
		t.Error(err)
	}
	c, _ = fake(t, fakellama.Script{LoadForever: true})
	if err := c.Health(t.Context()); !errors.Is(err, llamaapi.ErrLoading) {
		t.Errorf("loading: %v", err)
	}
	if _, err := c.Completion(t.Context(), text("x")); !errors.Is(err, llamaapi.ErrLoading) {
		t.Errorf("completion while loading: %v", err)
	}
	c, _ = fake(t, fakellama.Script{Health: fakellama.HealthWrong})
	if err := c.Health(t.Context()); !errors.Is(err, llamaapi.ErrMalformed) {
		t.Errorf("impostor: %v", err)
	}
	c, _ = fake(t, fakellama.Script{Health: fakellama.HealthHang})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := c.Health(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: %v", err)
	}
}

func TestAPIKey(t *testing.T) {
	c, _ := fake(t, fakellama.Script{APIKey: "right"}, llamaapi.WithAPIKey("right"))
	if _, err := c.Props(t.Context()); err != nil {
		t.Error(err)
	}
	c, _ = fake(t, fakellama.Script{APIKey: "right"}, llamaapi.WithAPIKey("wrong"))
	if _, err := c.Props(t.Context()); !errors.Is(err, llamaapi.ErrUnauthorized) {
		t.Errorf("wrong key: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(fakellama.New(fakellama.Script{Reply: "over a socket"}))
	_ = srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	defer srv.Close()
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer hc.CloseIdleConnections()
	c := llamaapi.New("http://llama", hc)
	if got := say(t, c, text("x")); got != "over a socket" {
		t.Errorf("got %q", got)
	}
}

// say reads a stream to its end and returns its text.
func say(t *testing.T, c *llamaapi.Client, r *llamaapi.CompletionRequest) string {
	t.Helper()
	text, _ := read(t, c, r)
	return text
}

// read reads a stream to its end and returns its text and its ids.
func read(t *testing.T, c *llamaapi.Client, r *llamaapi.CompletionRequest) (string, []int32) {
	t.Helper()
	s, err := c.Completion(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var ids []int32
	for tok := range s.All() {
		b.WriteString(tok.Text)
		ids = append(ids, tok.ID)
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
	return b.String(), ids
}

func TestChat(t *testing.T) {
	c, f := fake(t, fakellama.Script{Reply: "Hello! 😀"})
	msgs := []llamaapi.Message{{Role: "system", Content: "Be kind."}, {Role: "user", Content: "Hi <&>"}}
	prompt, err := c.ApplyTemplate(t.Context(), msgs, llamaapi.TemplateOptions{Vars: map[string]any{"enable_thinking": false}})
	if want := "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <&><|im_end|>\n<|im_start|>assistant\n"; err != nil || prompt != want {
		t.Errorf("prompt %q, %v", prompt, err)
	}
	s, err := c.Chat(t.Context(), msgs, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	toks := slices.Collect(s.All())
	var b strings.Builder
	for _, tok := range toks {
		b.WriteString(tok.Text)
	}
	if b.String() != "Hello! 😀" || s.Err() != nil || s.Final().Reason != llamaapi.StopEOS || s.Final().LostTokens != 0 {
		t.Errorf("reply %q, %v, %+v", b.String(), s.Err(), s.Final())
	}
	if n := f.Requests(); n != 1 {
		t.Errorf("%d completions for one chat", n)
	}
	c, _ = fake(t, fakellama.Script{TemplateError: "Conversation roles must alternate"})
	if _, err := c.Chat(t.Context(), msgs, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{}); err == nil || !strings.Contains(err.Error(), "roles must alternate") {
		t.Errorf("template error: %v", err)
	}
}

// TestStreamEqualsComplete checks that a stream has the same ids and text as the completion
// without streaming, including runes that are split over several tokens.
func TestStreamEqualsComplete(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Slots: 2, PingEvery: 3, CRLF: true})
	zero, most := float32(0), 200
	runes := 0
	for _, p := range []string{"one", "two", "three", "four", "five"} {
		req := text(p)
		req.Temperature, req.MaxTokens = &zero, &most
		whole, err := c.Complete(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Completion(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int32
		var b strings.Builder
		for tok := range s.All() {
			ids = append(ids, tok.ID)
			b.WriteString(tok.Text)
			if tok.Text == "" {
				runes++
			}
		}
		want := whole[0].Tokens
		if whole[0].Reason == llamaapi.StopEOS {
			want = want[:len(want)-1]
		}
		if s.Err() != nil || !slices.Equal(ids, want) || b.String() != whole[0].Text {
			t.Errorf("%s: %v\nstream %v %q\nwhole  %v %q", p, s.Err(), ids, b.String(), want, whole[0].Text)
		}
	}
	if runes == 0 {
		t.Error("no rune was split: the test shows nothing")
	}
}

func TestCompleteBatch(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Slots: 2})
	most, zero := 12, float32(0)
	req := &llamaapi.CompletionRequest{MaxTokens: &most, Temperature: &zero, Probs: 4}
	for _, p := range []string{"a", "b", "c", "d", "e"} {
		req.Prompts = append(req.Prompts, llamaapi.TextPrompt(p))
	}
	got, err := c.Complete(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range req.Prompts {
		one, err := c.Complete(t.Context(), &llamaapi.CompletionRequest{
			Prompts: []llamaapi.Prompt{p}, MaxTokens: &most, Temperature: &zero,
		})
		if err != nil || got[i].Text != one[0].Text || !slices.Equal(got[i].Tokens, one[0].Tokens) {
			t.Errorf("prompt %d: %q, alone %q, %v", i, got[i].Text, one[0].Text, err)
		}
		if len(got[i].Positions) == 0 || len(got[i].Positions[0].Top) != 4 || got[i].Positions[0].Top[0].ID != got[i].Tokens[0] {
			t.Errorf("prompt %d: probabilities %+v", i, got[i].Positions)
		}
	}
	req.StopIDs = []int32{got[0].Tokens[3]}
	cut, err := c.Complete(t.Context(), req)
	if err != nil || len(cut[0].Tokens) > 3 || cut[0].Reason != llamaapi.StopID {
		t.Errorf("stop id: %+v, %v", cut[0], err)
	}
}

func TestInvalidRequests(t *testing.T) {
	c, f := fake(t, fakellama.Script{})
	for name, r := range map[string]*llamaapi.CompletionRequest{
		"no prompt":          {},
		"mutually exclusive": {Prompts: []llamaapi.Prompt{{Text: "x"}}, Grammar: "root ::= \"a\"", JSONSchema: []byte(`{}`)},
		"not valid JSON":     {Prompts: []llamaapi.Prompt{{Text: "x"}}, JSONSchema: []byte(`{`)},
		"has one prompt":   {Prompts: []llamaapi.Prompt{{Text: "x"}, {Text: "y"}}},
		"does not support":   {Prompts: []llamaapi.Prompt{{Text: "x <__media__>", Media: [][]byte{{1, 2}}}}},
		"unsupported type":   {Prompts: []llamaapi.Prompt{{Text: "x"}}, Extra: map[string]any{"f": func() {}}},
		"contains invalid ":  {Prompts: []llamaapi.Prompt{llamaapi.TokenPrompt(1, 999999)}},
	} {
		if _, err := c.Completion(t.Context(), r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
	if n := f.Busy(); n != 0 {
		t.Errorf("%d slots are busy after rejected requests", n)
	}
}

func TestTokens(t *testing.T) {
	c, _ := fake(t, fakellama.Script{})
	const s = "<|im_start|>user\nthe café 😀"
	ids, err := c.Tokenize(t.Context(), s, llamaapi.TokenizeOptions{})
	if err != nil || ids[0] != fakellama.TokenTurn {
		t.Errorf("tokenize %v, %v", ids, err)
	}
	back, err := c.Detokenize(t.Context(), ids)
	if err != nil || back != s {
		t.Errorf("detokenize %q, %v", back, err)
	}
	plain, err := c.Tokenize(t.Context(), s, llamaapi.TokenizeOptions{PlainSpecial: true})
	if err != nil || slices.Contains(plain, fakellama.TokenTurn) {
		t.Errorf("plain %v, %v", plain, err)
	}
	if got, err := c.Detokenize(t.Context(), nil); err != nil || got != "" {
		t.Errorf("no tokens: %q, %v", got, err)
	}
	if _, err := c.Detokenize(t.Context(), []int32{-1}); err == nil {
		t.Error("an unknown id has a text")
	}
	if got := say(t, c, &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TokenPrompt(ids...)}, MaxTokens: ptr(5), Temperature: ptr(float32(0))}); got != say(t, c, &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt(s)}, MaxTokens: ptr(5), Temperature: ptr(float32(0))}) {
		t.Errorf("ids as a prompt differ from their text: %q", got)
	}
}

func TestEmbeddingsAndRerank(t *testing.T) {
	c, _ := fake(t, fakellama.Script{Embeddings: true, Reranking: true})
	v, err := c.Embeddings(t.Context(), []llamaapi.Prompt{llamaapi.TextPrompt("the sea"), llamaapi.TextPrompt("a tree")})
	if err != nil || len(v) != 2 || len(v[0]) != 8 || reflect.DeepEqual(v[0], v[1]) {
		t.Errorf("embeddings %v, %v", v, err)
	}
	if v, err := c.Embeddings(t.Context(), nil); v != nil || err != nil {
		t.Errorf("no inputs: %v, %v", v, err)
	}
	docs := []string{" tree tree", " the sea", " bird"}
	r, err := c.Rerank(t.Context(), " the sea", docs, 2)
	if err != nil || len(r) != 2 || r[0].Index != 1 || r[0].Score < r[1].Score {
		t.Errorf("rerank %+v, %v", r, err)
	}
	if r, err := c.Rerank(t.Context(), "x", docs, 0); err != nil || len(r) != 3 {
		t.Errorf("rerank all: %+v, %v", r, err)
	}
	if r, err := c.Rerank(t.Context(), "x", nil, 0); r != nil || err != nil {
		t.Errorf("no documents: %v, %v", r, err)
	}
}

func TestSlotsAndAdapters(t *testing.T) {
	ctx := t.Context()
	c, _ := fake(t, fakellama.Script{SlotSave: true, Adapters: []string{"a.gguf", "b.gguf"}})
	say(t, c, text("some prompt"))
	saved, err := c.SaveSlot(ctx, 0, "x.bin")
	if err != nil || saved.Tokens == 0 {
		t.Errorf("save %+v, %v", saved, err)
	}
	if n, err := c.EraseSlot(ctx, 0); err != nil || n != saved.Tokens {
		t.Errorf("erase %d, %v", n, err)
	}
	if r, err := c.RestoreSlot(ctx, 0, "x.bin"); err != nil || r.Tokens != saved.Tokens {
		t.Errorf("restore %+v, %v", r, err)
	}
	if _, err := c.RestoreSlot(ctx, 0, "../x"); !errors.Is(err, llamaapi.ErrInvalidRequest) {
		t.Errorf("restore of a path: %v", err)
	}
	// The server takes the number modulo the number of slots; package rocm rejects it.
	if second, err := c.SaveSlot(ctx, 9, "y"); err != nil || second.Tokens != saved.Tokens {
		t.Errorf("save of slot 9: %+v, %v", second, err)
	}
	if err := c.SetLoRAs(ctx, []llamaapi.LoRAScale{{ID: 1, Scale: 0.5}}); err != nil {
		t.Error(err)
	}
	if l, err := c.LoRAs(ctx); err != nil || len(l) != 2 || l[0].Scale != 0 || l[1].Scale != 0.5 || l[1].Path != "b.gguf" {
		t.Errorf("adapters %+v, %v", l, err)
	}
	if err := c.SetLoRAs(ctx, nil); err != nil {
		t.Error(err)
	}
}

// TestFaults checks the error of a stream for every fault.
func TestFaults(t *testing.T) {
	long := fakellama.Script{NeverEnds: true}
	for _, tc := range []struct {
		fault fakellama.Fault
		want  error
	}{
		{fakellama.Fault{Kind: fakellama.KindCut, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCut, AfterBytes: 500}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCrash, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindCutRune, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindNoFinal, AfterTokens: 3}, llamaapi.ErrTruncated},
		{fakellama.Fault{Kind: fakellama.KindGarbage, AfterTokens: 3}, llamaapi.ErrMalformed},
		{fakellama.Fault{Kind: fakellama.KindOversize, AfterTokens: 3, Bytes: 1 << 20}, llamaapi.ErrEventTooLarge},
		{fakellama.Fault{Kind: fakellama.KindError, AfterTokens: 3, Status: 400}, llamaapi.ErrInvalidRequest},
		{fakellama.Fault{Kind: fakellama.KindStall, AfterTokens: 3}, context.Canceled},
	} {
		t.Run(string(tc.fault.Kind), func(t *testing.T) {
			script := long
			script.Faults = []fakellama.Fault{tc.fault}
			c, f := fake(t, script, llamaapi.WithMaxEventBytes(100_000))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := c.Completion(ctx, text("x"))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for range s.All() {
				if n++; n == 3 && tc.fault.Kind == fakellama.KindStall {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
			}
			if !errors.Is(s.Err(), tc.want) || n == 0 {
				t.Errorf("%d tokens, then %v; want %v", n, s.Err(), tc.want)
			}
			poll.Until(t, "an idle slot", func() bool { return f.Busy() == 0 })
		})
	}
}

// TestConcurrentStreams reads more streams than there are slots with one client.
func TestConcurrentStreams(t *testing.T) {
	c, f := fake(t, fakellama.Script{Slots: 4, TokenDelay: 100 * time.Microsecond})
	zero, most := float32(0), 40
	req := func(i int) *llamaapi.CompletionRequest {
		r := text(strings.Repeat("p", i))
		r.Temperature, r.MaxTokens = &zero, &most
		return r
	}
	want := make([]string, 16)
	for i := range want {
		want[i] = say(t, c, req(i))
	}
	var wg sync.WaitGroup
	for i := range want {
		wg.Go(func() {
			s, err := c.Completion(t.Context(), req(i))
			if err != nil {
				t.Error(err)
				return
			}
			var b strings.Builder
			for tok := range s.All() {
				b.WriteString(tok.Text)
			}
			if b.String() != want[i] || s.Err() != nil {
				t.Errorf("stream %d: %q, %v; alone %q", i, b.String(), s.Err(), want[i])
			}
		})
	}
	wg.Wait()
	if f.Busy() != 0 {
		t.Error("a slot is still busy")
	}
}

// The server's own error for a body that is too large has no remedy.
func TestTooLargeErrorHasRemedy(t *testing.T) {
	err := &llamaapi.APIError{Status: http.StatusRequestEntityTooLarge, Message: "Request Entity Too Large"}
	if !strings.Contains(err.Error(), "100 MiB") || !strings.Contains(err.Error(), "shorten it") {
		t.Error(err)
	}
}

// ptr returns a pointer to v. (The expression new(v) needs Go 1.26.)
func ptr[T any](v T) *T { return &v }
