package inference_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// echo is a backend that repeats the prompt, word by word.
type echo struct{}

func (echo) Name() string    { return "echo" }
func (echo) Available() bool { return true }

func (echo) LoadModel(string, ...inference.LoadOption) (inference.TextModel, error) {
	return &echoModel{}, nil
}

// echoModel has nothing for what it does not embed, which the examples do not use.
type echoModel struct{ inference.TextModel }

func (*echoModel) Generate(_ context.Context, prompt string, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		for i, word := range strings.Fields(prompt) {
			if i == inference.ApplyGenerateOpts(opts).MaxTokens || !yield(inference.Token{ID: int32(i), Text: word + " "}) {
				return
			}
		}
	}
}

func (m *echoModel) Chat(ctx context.Context, messages []inference.Message, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.Generate(ctx, messages[len(messages)-1].Content, opts...)
}

func (*echoModel) Err() error   { return nil }
func (*echoModel) Close() error { return nil }

// The program loads a model and does not depend on the backend, which an import has
// registered.
func Example() {
	inference.Register(echo{}) // a backend's package does this in its init function

	model, err := inference.LoadModel("model.gguf")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	for token := range model.Generate(context.Background(), "to be or not to be", inference.WithMaxTokens(4)) {
		fmt.Print(token.Text)
	}
	if err := model.Err(); err != nil { // the loop ends on a failure too
		fmt.Println(err)
	}
	// Output: to be or not
}

// LoadModel distinguishes a backend that was not linked into the program from one that this
// machine cannot run.
func ExampleLoadModel() {
	_, err := inference.LoadModel("model.gguf", inference.WithBackend("metal"))
	fmt.Println(errors.Is(err, inference.ErrBackendNotRegistered), errors.Is(err, inference.ErrBackendUnavailable))
	// Output: true false
}

// Backends by name, and the best that is available.
func ExampleDefault() {
	inference.Register(echo{})

	for name, backend := range inference.All() {
		fmt.Println(name, backend.Available())
	}
	best, err := inference.Default()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, ok := inference.Get(best.Name())
	fmt.Println(best.Name(), ok, inference.List())
	// Output:
	// echo true
	// echo true [echo]
}

// A backend sees the options as one value.
func ExampleApplyLoadOpts() {
	cfg := inference.ApplyLoadOpts([]inference.LoadOption{
		inference.WithContextLen(8192),
		inference.WithParallelSlots(4),
	})
	fmt.Printf("%+v\n", cfg)
	// Output: {Backend: ContextLen:8192 GPULayers:-1 ParallelSlots:4 AdapterPath:}
}

// The default is 256 tokens at temperature 0.
func ExampleApplyGenerateOpts() {
	cfg := inference.ApplyGenerateOpts([]inference.GenerateOption{
		inference.WithTemperature(0.7),
		inference.WithTopP(0.9),
		inference.WithStopTokens(2),
	})
	fmt.Printf("%+v\n", cfg)
	// Output: {MaxTokens:256 Temperature:0.7 TopK:0 TopP:0.9 StopTokens:[2] RepeatPenalty:0 ReturnLogits:false}
}

// Models in a directory are found without loading them.
func ExampleDiscover() {
	dir, err := os.MkdirTemp("", "models-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for name, content := range map[string]string{
		"config.json":       `{"model_type":"gemma3","quantization":{"bits":4,"group_size":64}}`,
		"model.safetensors": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			fmt.Println(err)
		}
	}
	for m := range inference.Discover(dir) {
		fmt.Println(m.Path == dir, m.ModelType, m.QuantBits, m.NumFiles)
	}
	// Output: true gemma3 4 1
}
