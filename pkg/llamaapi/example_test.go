package llamaapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A stream yields tokens while they are generated.
func ExampleClient_Completion() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{Reply: "a small town 😀"}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	limit, temperature := 64, float32(0)
	stream, err := client.Completion(context.Background(), &llamaapi.CompletionRequest{
		Prompts:     []llamaapi.Prompt{llamaapi.TextPrompt("Once upon a time")},
		MaxTokens:   &limit,
		Temperature: &temperature,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for tok := range stream.All() {
		fmt.Print(tok.Text)
	}
	if err := stream.Err(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("\n%s\n", stream.Final().Reason)
	// Output:
	// a small town 😀
	// eos
}

// Chat formats the messages with the model's own template.
func ExampleClient_Chat() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{Reply: "Blue."}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	limit := 8
	stream, err := client.Chat(context.Background(), []llamaapi.Message{
		{Role: "user", Content: "What is the colour of the sky?"},
	}, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{MaxTokens: &limit})
	if err != nil {
		fmt.Println(err)
		return
	}
	for tok := range stream.All() {
		fmt.Print(tok.Text)
	}
	fmt.Println()
	// Output: Blue.
}

// Several prompts share the server's slots; the results keep their order.
func ExampleClient_Complete() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{Reply: "yes", Slots: 2}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	limit := 8
	results, err := client.Complete(context.Background(), &llamaapi.CompletionRequest{
		Prompts:   []llamaapi.Prompt{llamaapi.TextPrompt("Is water wet?"), llamaapi.TextPrompt("Is fire hot?")},
		MaxTokens: &limit,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Println(r.Index, r.Text, r.Reason)
	}
	// Output:
	// 0 yes eos
	// 1 yes eos
}

// Tokenize returns the token ids of a text, and Detokenize the text.
func ExampleClient_Tokenize() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{}))
	defer srv.Close()

	client, ctx := llamaapi.New(srv.URL, srv.Client()), context.Background()
	ids, err := client.Tokenize(ctx, "a small 🌍", llamaapi.TokenizeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := client.Detokenize(ctx, ids)
	fmt.Println(text, err)
	// Output: a small 🌍 <nil>
}

// A server that was started with --embeddings returns one vector for each text.
func ExampleClient_Embeddings() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{Embeddings: true}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	vectors, err := client.Embeddings(context.Background(), []llamaapi.Prompt{llamaapi.TextPrompt("a river"), llamaapi.TextPrompt("a mountain")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(vectors), len(vectors[0]) == len(vectors[1]))
	// Output: 2 true
}

// While the model is loading, Health returns an error; try again later.
func ExampleClient_Health() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{LoadForever: true}))
	defer srv.Close()

	err := llamaapi.New(srv.URL, srv.Client()).Health(context.Background())
	fmt.Println(errors.Is(err, llamaapi.ErrLoading))
	// Output: true
}

// Errors have the server's message, and match a condition.
func ExampleAPIError() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{ContextLen: 4}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	_, err := client.Completion(context.Background(), &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{llamaapi.TokenPrompt(5, 5, 5, 5, 5, 5)},
	})
	var api *llamaapi.APIError
	if errors.As(err, &api) && errors.Is(err, llamaapi.ErrContextExceeded) {
		fmt.Printf("%d tokens do not fit a context of %d\n", api.PromptTokens, api.ContextLen)
	}
	// Output: 6 tokens do not fit a context of 4
}
