//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// Leaving the loop ends the generation and is no failure.
func ExampleModel_Generate() {
	model, done := loaded(fakellama.Script{NeverEnds: true}, rocm.Settings{})
	defer done()

	n := 0
	for range model.Generate(context.Background(), "Once upon a time", inference.WithMaxTokens(100_000)) {
		if n++; n == 3 {
			break
		}
	}
	fmt.Println(n, model.Err())

	model.Generate(context.Background(), "x", inference.WithTemperature(-1))(func(inference.Token) bool { return true })
	fmt.Println(errors.Is(model.Err(), rocm.ErrInvalidOption))
	// Output:
	// 3 <nil>
	// true
}

// A stream has an error and metrics of its own, which streams beside it do not
// touch, and takes more options than the contract: here a seed and a schema for
// the answer.
func ExampleModel_Stream() {
	model, done := loaded(fakellama.Script{Reply: `{"city":"Rome","country":"Italy"}`}, rocm.Settings{})
	defer done()

	seed := int64(42)
	stream := model.Stream(context.Background(), rocm.Request{
		Prompt:         rocm.ChatPrompt([]inference.Message{{Role: "user", Content: "Name a city and its country."}}),
		GenerateConfig: inference.GenerateConfig{MaxTokens: 100, Temperature: 0.8, TopP: 0.95},
		Seed:           &seed,
		JSONSchema:     []byte(`{"type":"object","properties":{"city":{"type":"string"},"country":{"type":"string"}},"required":["city","country"]}`),
	})
	for token := range stream.All() {
		fmt.Print(token.Text)
	}
	fmt.Println()
	fmt.Println(stream.Err(), stream.Final().Reason, stream.Metrics().GeneratedTokens > 0)
	// Output:
	// {"city":"Rome","country":"Italy"}
	// <nil> eos true
}

// A conversation goes through the model's own template; each answer is added to
// it before the next question.
func ExampleModel_Chat() {
	model, done := loaded(fakellama.Script{Reply: "Rome."}, rocm.Settings{})
	defer done()

	messages := []inference.Message{
		{Role: "system", Content: "Answer in one word."},
		{Role: "user", Content: "What is the capital of Italy?"},
	}
	answer := ""
	for token := range model.Chat(context.Background(), messages, inference.WithMaxTokens(16)) {
		answer += token.Text
	}
	if err := model.Err(); err != nil {
		fmt.Println(err)
		return
	}
	messages = append(messages, inference.Message{Role: "assistant", Content: answer})
	fmt.Println(len(messages), answer)
	// Output: 3 Rome.
}

// A batch runs over the slots; its results keep the order of the prompts.
func ExampleModel_BatchGenerate() {
	model, done := loaded(fakellama.Script{Reply: "yes", Slots: 2}, rocm.Settings{})
	defer done()

	prompts := []string{"Is water wet?", "Is fire hot?", "Is ice cold?"}
	results, err := model.BatchGenerate(context.Background(), prompts, inference.WithMaxTokens(8))
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, r := range results {
		fmt.Print(prompts[i], " ")
		for _, token := range r.Tokens {
			fmt.Print(token.Text)
		}
		fmt.Println("", r.Err)
	}
	// Output:
	// Is water wet? yes <nil>
	// Is fire hot? yes <nil>
	// Is ice cold? yes <nil>
}

// One token is sampled for each prompt. The logits are returned on request.
func ExampleModel_Classify() {
	model, done := loaded(fakellama.Script{Reply: "+"}, rocm.Settings{})
	defer done()

	results, err := model.Classify(context.Background(), []string{"I love it.\nVerdict, + or -: "}, inference.WithLogits())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(results[0].Token.Text, len(results[0].Logits) == model.Info().VocabSize)
	// Output: + true
}

// Text becomes tokens and comes back.
func ExampleModel_Tokenize() {
	model, done := loaded(fakellama.Script{}, rocm.Settings{})
	defer done()

	ctx := context.Background()
	ids, err := model.Tokenize(ctx, "a small 🌍")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := model.Detokenize(ctx, ids)
	fmt.Println(text, err)
	// Output: a small 🌍 <nil>
}

// Ids must belong to the model's vocabulary; the error for another one has its position.
func ExampleModel_Detokenize() {
	model, done := loaded(fakellama.Script{}, rocm.Settings{})
	defer done()

	ctx := context.Background()
	ids, err := model.Tokenize(ctx, "a small town")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := model.Detokenize(ctx, ids[:2])
	fmt.Printf("%q %v\n", text, err)
	_, err = model.Detokenize(ctx, []int32{ids[0], -1})
	fmt.Println(errors.Is(err, rocm.ErrInvalidOption), err)
	// Output:
	// "a small" <nil>
	// true invalid option: id 1 is -1; the vocabulary has the ids from 0 to 49151
}

// CountTokens shows whether a prompt and its answer fit into a slot's context.
func ExampleModel_CountTokens() {
	settings := rocm.Settings{}
	settings.Context, settings.Slots = 512, 1
	model, done := loaded(fakellama.Script{}, settings)
	defer done()

	n, err := model.CountTokens(context.Background(), "it is a small green stone")
	if err != nil {
		fmt.Println(err)
		return
	}
	const answer = 256
	fmt.Println(n, n+answer <= settings.Context/model.Slots())
	// Output: 7 true
}

// A vector for each text, from a model that was made for it.
func ExampleModel_Embed() {
	settings := rocm.Settings{}
	settings.Embeddings, settings.Pooling = true, "mean"
	model, done := loaded(fakellama.Script{}, settings)
	defer done()

	vectors, err := model.Embed(context.Background(), []string{"a river", "a mountain"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(vectors), "vectors of one length:", len(vectors[0]) == len(vectors[1]))
	// Output: 2 vectors of one length: true
}

// The documents that answer a query best come first.
func ExampleModel_Rerank() {
	settings := rocm.Settings{}
	settings.Reranking = true
	model, done := loaded(fakellama.Script{}, settings)
	defer done()

	documents := []string{"a desert", "a river", "a mountain"}
	ranked, err := model.Rerank(context.Background(), "water", documents, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(ranked), ranked[0].Score >= ranked[1].Score)
	// Output: 2 true
}

// A model with a projector answers about images; the answer here is scripted.
func ExampleModel_ChatMedia() {
	model, done := loaded(fakellama.Script{Reply: "A cat and a dog.", Vision: true}, rocm.Settings{}) // Settings.Projector names the file
	defer done()

	question := []rocm.MediaMessage{{
		Message: inference.Message{Role: "user", Content: "Who is in " + rocm.MediaMarker + " and who in " + rocm.MediaMarker + "?"},
		Media:   []rocm.Media{{Data: imagegen.PNG(64, 1), Type: "image/png"}, {Data: imagegen.PNG(64, 2)}},
	}}
	for token := range model.ChatMedia(context.Background(), question) {
		fmt.Print(token.Text)
	}
	fmt.Println()
	fmt.Println(model.Err(), model.Modalities().Vision)

	// What is no image, or what the model cannot read, is said so.
	noise := []rocm.Media{{Data: []byte("not an image")}}
	for range model.GenerateMedia(context.Background(), "What is this?", noise) {
	}
	fmt.Println(errors.Is(model.Err(), rocm.ErrMedia))
	// Output:
	// A cat and a dog.
	// <nil> true
	// true
}

// A model with a projector goes on from a text with an image in it.
func ExampleModel_GenerateMedia() {
	model, done := loaded(fakellama.Script{Reply: " a cat.", Vision: true}, rocm.Settings{}) // Settings.Projector names the file
	defer done()

	picture := []rocm.Media{{Data: imagegen.PNG(64, 1), Type: "image/png"}}
	for token := range model.GenerateMedia(context.Background(), "The picture "+rocm.MediaMarker+" shows", picture) {
		fmt.Print(token.Text)
	}
	fmt.Println()
	fmt.Println(model.Err())
	// Output:
	//  a cat.
	// <nil>
}

// What a slot has computed of a long prompt is saved to a file of Settings.SlotDir
// and taken back later, by the same model with the same settings.
func ExampleModel_SaveSlot() {
	dir, err := os.MkdirTemp("", "slots-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	settings := rocm.Settings{}
	settings.SlotDir = dir
	model, done := loaded(fakellama.Script{Reply: "ok"}, settings)
	defer done()

	ctx, slot, reuse := context.Background(), 0, true
	config := inference.DefaultGenerateConfig()
	stream := model.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt("it is a small green stone"), GenerateConfig: config, Slot: &slot, ReuseCache: &reuse})
	for range stream.All() {
	}
	saved, err := model.SaveSlot(ctx, slot, "stone.bin")
	if err = errors.Join(stream.Err(), err); err != nil {
		fmt.Println(err)
		return
	}
	back, err := model.RestoreSlot(ctx, slot, "stone.bin")
	fmt.Println(saved.Name, saved.Tokens > 0, back.Tokens == saved.Tokens, err)
	// Output: stone.bin true true <nil>
}

// An adapter that was loaded with Settings.Adapters is made weaker for all later requests. One request alone takes
// its scales from Request.Adapters.
func ExampleModel_SetAdapters() {
	model, done := loaded(fakellama.Script{Adapters: []string{"formal.gguf"}}, rocm.Settings{})
	defer done()

	ctx := context.Background()
	if err := model.SetAdapters(ctx, []llamaapi.LoRAScale{{ID: 0, Scale: 0.5}}); err != nil {
		fmt.Println(err)
		return
	}
	adapters, err := model.Adapters(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range adapters {
		fmt.Println(a.ID, a.Path, a.Scale)
	}
	// Output: 0 formal.gguf 0.5
}
