package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	openai "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// opened is an open stream.
type opened struct {
	keep  any
	close func() error
}

// opener opens a stream and reads its first chunk.
type opener struct {
	name string
	ours bool
	open func(context.Context) (opened, error)
}

// Memory measures the memory of an idle and of a running stream.
func Memory(ctx context.Context, in Input, streams, idle int) (page.Section, error) {
	s := page.Section{
		Name: "memory", Title: "Memory of a stream",
		Text: []string{fmt.Sprintf("Increase of the heap and the stacks of the program per stream, after a garbage collection. Running: %d streams over one child, each of which has returned its first token and waits for its reader, "+
			"including its connection. Idle: %d streams that were created and not read yet. Model: %s. Medians of %d rounds.", streams, idle, in.Tiny.Name, in.Rounds)},
		Head: []string{"", "KiB per stream"},
	}
	m, err := in.load(ctx, in.Tiny, streams, slotTokens, "")
	if err != nil {
		return s, err
	}
	defer func() { _ = m.Close() }()
	r, err := raw(ctx, m, slotTokens/2)
	if err != nil {
		return s, err
	}
	clients := []opener{
		{name: "go-rocm, idle", ours: true, open: func(ctx context.Context) (opened, error) {
			st := m.Stream(ctx, request(slotTokens/2))
			return opened{st, st.Close}, nil
		}},
		{name: "go-rocm, running", ours: true, open: func(ctx context.Context) (opened, error) { return openOurs(ctx, m) }},
	}
	clients = append(clients, peers(r, ", running")...)
	samples, err := in.interleave(ctx, clients, "KiB", func(ctx context.Context, i int) (float64, error) {
		n := streams
		if i == 0 {
			n = idle
		}
		defer r.close()
		return cost(ctx, clients[i].open, n)
	})
	if err != nil {
		return s, err
	}
	for i, c := range clients {
		s.Rows = append(s.Rows, []string{c.title(), page.Figure(page.Median(samples[i]))})
	}
	return s, nil
}

// peers returns the clients of other projects.
func peers(r *rawReader, what string) []opener {
	return []opener{
		{name: "a raw reader" + what, open: r.first},
		{name: "sashabaranov/go-openai, chat stream" + what, open: openCommunity(r)},
		{name: "openai-go v3, chat stream" + what, open: openOfficial(r)},
	}
}

// title returns the name in the table.
func (o opener) title() string {
	if o.ours {
		return "**" + o.name + "**"
	}
	return o.name
}

// interleave measures the clients in turn, each by its index, and prints each
// measurement.
func (in *Input) interleave(ctx context.Context, clients []opener, unit string, measure func(context.Context, int) (float64, error)) ([][]float64, error) {
	variants := make([]page.Variant, len(clients))
	for i, c := range clients {
		variants[i] = func(ctx context.Context) (float64, error) {
			v, err := measure(ctx, i)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", c.name, err)
			}
			in.printf("%s: %.1f %s", c.name, v, unit)
			return v, nil
		}
	}
	return page.Interleave(ctx, in.Rounds, variants...)
}

// cost opens n streams at once and returns KiB per stream.
func cost(ctx context.Context, open func(context.Context) (opened, error), n int) (kib float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	held := make([]opened, n)
	var next atomic.Int64
	before := inUse()
	err = runConcurrently(n, func() (err error) {
		held[next.Add(1)-1], err = open(ctx)
		return err
	})
	after := inUse()
	errs := []error{err}
	for _, h := range held {
		if h.close != nil {
			errs = append(errs, h.close())
		}
		runtime.KeepAlive(h.keep)
	}
	return (float64(after) - float64(before)) / float64(n) / 1024, errors.Join(errs...)
}

// inUse returns the size of heap and stacks in bytes after a garbage collection.
func inUse() uint64 {
	var m runtime.MemStats
	for range 3 { // a sync.Pool is empty after the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func openOurs(ctx context.Context, m *rocm.Model) (opened, error) {
	st := m.Stream(ctx, request(slotTokens/2))
	if _, ok := st.Next(); !ok {
		return opened{}, errors.Join(errors.New("no first token"), st.Err(), st.Close())
	}
	return opened{st, st.Close}, nil
}

// first reads the first bytes of a stream.
func (r *rawReader) first(ctx context.Context) (opened, error) {
	resp, err := r.open(ctx)
	if err != nil {
		return opened{}, err
	}
	buf := make([]byte, 16<<10)
	if n, err := resp.Body.Read(buf); n == 0 {
		return opened{}, errors.Join(err, resp.Body.Close())
	}
	return opened{[]any{resp, buf}, resp.Body.Close}, nil
}

const chatTokens = slotTokens / 2

func openOfficial(r *rawReader) func(context.Context) (opened, error) {
	client := openai.NewClient(option.WithBaseURL(r.base+"/v1/"), option.WithAPIKey(r.key), option.WithHTTPClient(r.hc))
	params := openai.ChatCompletionNewParams{
		Model: "tiny", MaxTokens: openai.Int(chatTokens), Temperature: openai.Float(0),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	}
	return func(ctx context.Context) (opened, error) {
		st := client.Chat.Completions.NewStreaming(ctx, params)
		if !st.Next() {
			return opened{}, errors.Join(errors.New("no first chunk"), st.Err(), st.Close())
		}
		return opened{st, st.Close}, nil
	}
}

func openCommunity(r *rawReader) func(context.Context) (opened, error) {
	cfg := goopenai.DefaultConfig(r.key)
	cfg.BaseURL, cfg.HTTPClient = r.base+"/v1", r.hc
	client := goopenai.NewClientWithConfig(cfg)
	req := goopenai.ChatCompletionRequest{
		Model: "tiny", Stream: true, MaxCompletionTokens: chatTokens,
		Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: prompt}},
	}
	return func(ctx context.Context) (opened, error) {
		st, err := client.CreateChatCompletionStream(ctx, req)
		if err != nil {
			return opened{}, err
		}
		if _, err := st.Recv(); err != nil && !errors.Is(err, io.EOF) {
			return opened{}, errors.Join(err, st.Close())
		}
		return opened{st, st.Close}, nil
	}
}
