package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	openai "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"
)

// Case is a client that reads a stream.
type Case struct {
	// Name is the name in the table.
	Name string
	// Peer is true for the clients of other projects.
	Peer bool
	// Text is false if the case yields no text to compare.
	Text bool
	// Open returns a reader of the server's streams.
	Open func(*Server) Read
}

// Read reads one stream to its end and calls yield with the text of each token.
type Read func(ctx context.Context, yield func(text string)) error

// Cases returns all cases, the slowest first.
func Cases() []Case {
	return []Case{
		{"openai-go v3, chat stream", true, true, officialOpenAI},
		{"sashabaranov/go-openai, chat stream", true, true, communityOpenAI},
		{"bufio and encoding/json by hand", true, true, byHand},
		{"go-rocm, TCP", false, true, func(s *Server) Read { return ours(llamaapi.New(s.TCP, &http.Client{Transport: &http.Transport{}})) }},
		{"go-rocm, unix socket", false, true, func(s *Server) Read { return ours(llamaapi.New("http://llama", unixClient(s.Socket))) }},
		{"reading the bytes only, TCP", true, false, func(s *Server) Read { return raw(s.TCP, &http.Client{Transport: &http.Transport{}}) }},
		{"reading the bytes only, unix socket", true, false, func(s *Server) Read { return raw("http://llama", unixClient(s.Socket)) }},
	}
}

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

// ours reads up to the Token of the contract.
func ours(c *llamaapi.Client) Read {
	req := &llamaapi.CompletionRequest{Prompts: []llamaapi.Prompt{llamaapi.TextPrompt("Once upon a time")}}
	return func(ctx context.Context, yield func(string)) error {
		s, err := c.Completion(ctx, req)
		if err != nil {
			return err
		}
		for t := range s.All() {
			tok := inference.Token(t)
			yield(tok.Text)
		}
		return s.Err()
	}
}

// post requests a stream of /completion with net/http alone.
func post(ctx context.Context, base string, hc *http.Client) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/completion", strings.NewReader(`{"prompt":"Once upon a time","stream":true}`))
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("status %d", resp.StatusCode), resp.Body.Close())
	}
	return resp, nil
}

// raw reads the bytes and discards them.
func raw(base string, hc *http.Client) Read {
	buf := make([]byte, 16<<10)
	return func(ctx context.Context, _ func(string)) error {
		resp, err := post(ctx, base, hc)
		if err != nil {
			return err
		}
		for {
			_, err := resp.Body.Read(buf)
			if errors.Is(err, io.EOF) {
				return resp.Body.Close()
			}
			if err != nil {
				return errors.Join(err, resp.Body.Close())
			}
		}
	}
}

// byHand is a simple client with bufio and encoding/json.
func byHand(s *Server) Read {
	hc := &http.Client{Transport: &http.Transport{}}
	return func(ctx context.Context, yield func(string)) error {
		resp, err := post(ctx, s.TCP, hc)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 64<<10), 1<<20)
		for lines.Scan() {
			data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
			if !ok {
				continue
			}
			var e struct {
				Content string  `json:"content"`
				Tokens  []int32 `json:"tokens"`
				Stop    bool    `json:"stop"`
			}
			if err := json.Unmarshal(data, &e); err != nil {
				return errors.Join(err, resp.Body.Close())
			}
			if !e.Stop {
				yield(e.Content)
			}
		}
		return errors.Join(lines.Err(), resp.Body.Close())
	}
}

func officialOpenAI(s *Server) Read {
	client := openai.NewClient(option.WithBaseURL(s.TCP+"/v1/"), option.WithAPIKey("none"),
		option.WithHTTPClient(&http.Client{Transport: &http.Transport{}}))
	params := openai.ChatCompletionNewParams{
		Model:    "smollm2-135m",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Once upon a time")},
	}
	return func(ctx context.Context, yield func(string)) error {
		stream := client.Chat.Completions.NewStreaming(ctx, params)
		for stream.Next() {
			if chunk := stream.Current(); len(chunk.Choices) > 0 && chunk.Choices[0].FinishReason == "" {
				yield(chunk.Choices[0].Delta.Content)
			}
		}
		return errors.Join(stream.Err(), stream.Close())
	}
}

func communityOpenAI(s *Server) Read {
	cfg := goopenai.DefaultConfig("none")
	cfg.BaseURL = s.TCP + "/v1"
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{}}
	client := goopenai.NewClientWithConfig(cfg)
	req := goopenai.ChatCompletionRequest{
		Model: "smollm2-135m", Stream: true,
		Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "Once upon a time"}},
	}
	return func(ctx context.Context, yield func(string)) error {
		stream, err := client.CreateChatCompletionStream(ctx, req)
		if err != nil {
			return err
		}
		for {
			chunk, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return stream.Close()
			}
			if err != nil {
				return errors.Join(err, stream.Close())
			}
			if len(chunk.Choices) > 0 && chunk.Choices[0].FinishReason == "" {
				yield(chunk.Choices[0].Delta.Content)
			}
		}
	}
}
