package llamaapi_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
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
