package rocm_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Through the contract, the way that works with any backend.
func Example() {
	model, err := inference.LoadModel("model.gguf", inference.WithContextLen(8192))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = model.Close() }()
	for token := range model.Chat(context.Background(), []inference.Message{{Role: "user", Content: "Why is the sky blue?"}}) {
		fmt.Print(token.Text)
	}
	if err := model.Err(); err != nil {
		log.Fatal(err)
	}
}

// With everything that the backend offers beyond the contract: a child that is
// started again when it dies, a seed, a schema for the answer, and an error and
// metrics that belong to this one stream.
func ExampleModel_Stream() {
	settings := rocm.DefaultSettings()
	settings.ParallelSlots = 8
	settings.Restart = supervise.RestartOnFailure()
	model, err := (&rocm.Backend{}).Load(context.Background(), "model.gguf", settings)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = model.Close() }()

	seed := int64(42)
	stream := model.Stream(context.Background(), rocm.Request{
		Messages:       []inference.Message{{Role: "user", Content: "Name a city and its country."}},
		GenerateConfig: inference.GenerateConfig{MaxTokens: 100, Temperature: 0.8, TopP: 0.95},
		Seed:           &seed,
		JSONSchema:     []byte(`{"type":"object","properties":{"city":{"type":"string"},"country":{"type":"string"}},"required":["city","country"]}`),
	})
	for token := range stream.All() {
		fmt.Print(token.Text)
	}
	if err := stream.Err(); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "%.1f tokens a second\n", stream.Metrics().DecodeTokensPerSec)
}

// A vector for each text, from a model that was made for it.
func ExampleModel_Embed() {
	settings := rocm.DefaultSettings()
	settings.Embeddings = true
	model, err := (&rocm.Backend{}).Load(context.Background(), "embedding-model.gguf", settings)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = model.Close() }()
	vectors, err := model.Embed(context.Background(), []string{"a river", "a mountain"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(vectors), "vectors of", len(vectors[0]), "numbers")
}
