package llamaapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A stream yields tokens as they are sampled.
func ExampleClient_Completion() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{Reply: "a small town 😀"}))
	defer srv.Close()

	client := llamaapi.New(srv.URL, srv.Client())
	stream, err := client.Completion(context.Background(), &llamaapi.CompletionRequest{
		Prompts:     []llamaapi.Prompt{llamaapi.TextPrompt("Once upon a time")},
		MaxTokens:   new(64),
		Temperature: new(float32(0)),
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
	stream, err := client.Chat(context.Background(), []llamaapi.Message{
		{Role: "user", Content: "What is the colour of the sky?"},
	}, llamaapi.TemplateOptions{}, &llamaapi.CompletionRequest{MaxTokens: new(8)})
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

// Errors keep what the server said, and match a condition.
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
