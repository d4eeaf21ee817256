package rocm_test

import (
	"context"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Through the contract, the way that works with any backend.
func Example() {
	ask := func(ctx context.Context, path, question string) error {
		model, err := inference.LoadModel(path, inference.WithContextLen(8192))
		if err != nil {
			return err
		}
		defer func() { _ = model.Close() }()
		for token := range model.Chat(ctx, []inference.Message{{Role: "user", Content: question}}) {
			fmt.Print(token.Text)
		}
		return model.Err() // nil when the answer came to its end
	}
	if err := ask(context.Background(), "model.gguf", "Why is the sky blue?"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// With what the backend offers beyond the contract: a child that is started
// again when it dies, a seed, a schema for the answer, and an error and metrics
// that belong to this one stream.
func ExampleModel_Stream() {
	ask := func(ctx context.Context) error {
		settings := rocm.DefaultSettings()
		settings.ParallelSlots = 8
		settings.Restart = supervise.RestartOnFailure()
		model, err := (&rocm.Backend{}).Load(ctx, "model.gguf", settings)
		if err != nil {
			return err
		}
		defer func() { _ = model.Close() }()

		seed := int64(42)
		stream := model.Stream(ctx, rocm.Request{
			Messages:       []inference.Message{{Role: "user", Content: "Name a city and its country."}},
			GenerateConfig: inference.GenerateConfig{MaxTokens: 100, Temperature: 0.8, TopP: 0.95},
			Seed:           &seed,
			JSONSchema:     []byte(`{"type":"object","properties":{"city":{"type":"string"},"country":{"type":"string"}},"required":["city","country"]}`),
		})
		for token := range stream.All() {
			fmt.Print(token.Text)
		}
		fmt.Fprintf(os.Stderr, "%.1f tokens a second\n", stream.Metrics().DecodeTokensPerSec)
		return stream.Err()
	}
	if err := ask(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// A vector for each text, from a model that was made for it.
func ExampleModel_Embed() {
	embed := func(ctx context.Context, texts ...string) ([][]float32, error) {
		settings := rocm.DefaultSettings()
		settings.Embeddings = true
		model, err := (&rocm.Backend{}).Load(ctx, "embedding-model.gguf", settings)
		if err != nil {
			return nil, err
		}
		defer func() { _ = model.Close() }()
		return model.Embed(ctx, texts)
	}
	vectors, err := embed(context.Background(), "a river", "a mountain")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Println(len(vectors), "vectors of", len(vectors[0]), "numbers")
}
