//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// Through the contract, the way that works with any backend.
func Example() {
	defer fakebundle.Example(fakellama.Script{Reply: "It scatters blue light."})() // answers in place of a model

	model, err := inference.LoadModel(os.Getenv("MODEL"), inference.WithContextLen(8192))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	question := []inference.Message{{Role: "user", Content: "Why is the sky blue?"}}
	for token := range model.Chat(context.Background(), question) {
		fmt.Print(token.Text)
	}
	if err := model.Err(); err != nil { // nil when the answer came to its end
		fmt.Println(err)
	}
	// Output: It scatters blue light.
}

// With what the backend offers beyond the contract: a child that is started
// again when it dies, and limits of its own.
func ExampleBackend_Load() {
	defer fakebundle.Example(fakellama.Script{})()

	settings := rocm.Settings{}
	settings.Context, settings.Slots = 8192, 8
	settings.Cache.HostLimit = 1 << 30
	settings.Restart.MaxFailures = 3
	model, err := (&rocm.Backend{}).Load(context.Background(), os.Getenv("MODEL"), settings)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	info := model.Info()
	fmt.Printf("%s, %d layers, %d slots\n", info.Architecture, info.NumLayers, model.Slots())
	// Output: llama, 30 layers, 8 slots
}

// loaded gives a model whose answers are scripted.
func loaded(script fakellama.Script, settings rocm.Settings) (model *rocm.Model, done func()) {
	restore := fakebundle.Example(script)
	model, err := (&rocm.Backend{}).Load(context.Background(), os.Getenv(fakebundle.EnvModel), settings)
	if err != nil {
		panic(err)
	}
	return model, func() {
		if err := model.Close(); err != nil {
			panic(err)
		}
		restore()
	}
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

// One token is sampled for each prompt; the logits are there when asked for.
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

// Where the llama-server would come from.
func Example_locate() {
	defer fakebundle.Example(fakellama.Script{})()

	found, err := locate.Find("")
	if err != nil {
		fmt.Println(err) // it says where was looked, and what to set
		return
	}
	defer func() { _ = found.Close() }()
	fmt.Println(found.Origin)
	// Output: given
}

// Whether a model would fit a card that is not here.
func Example_simulate() {
	defer fakebundle.Example(fakellama.Script{})()

	m, err := machine.Detect("", machine.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	card, err := gfx.Parse("gfx1100")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := m.Simulate(card, 24<<30); err != nil {
		fmt.Println(err)
		return
	}
	p, err := m.Plan(os.Getenv("MODEL"), plan.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Fits, p.Layers == p.TotalLayers)
	// Output: true true
}
