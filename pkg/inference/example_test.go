package inference_test

import (
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Without a backend, loading says what to do.
func ExampleLoadModel() {
	_, err := inference.LoadModel("model.gguf", inference.WithBackend("rocm"))
	fmt.Println(err)
	// Output: inference backend is not registered: "rocm" (registered: none); import the package that provides it
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

// Models in a folder are found without loading them.
func ExampleDiscover() {
	for m := range inference.Discover("/srv/models") {
		fmt.Println(m.Path, m.ModelType, m.QuantBits)
	}
}
