//go:build linux && amd64

package goinference_test

import (
	"context"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-inference"

	_ "forge.lthn.ai/core/go-rocm/contrib/goinference" // registers the backend rocm
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// The program uses only go-inference; the import selects the backend.
func Example() {
	defer fakebundle.Example(fakellama.Script{Reply: "Blue."})()

	model, err := inference.LoadModel(os.Getenv("MODEL"), inference.WithContextLen(2048))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	question := []inference.Message{{Role: "user", Content: "What is the colour of the sky?"}}
	for token := range model.Chat(context.Background(), question) {
		fmt.Print(token.Text)
	}
	if err := model.Err(); err != nil {
		fmt.Println(err)
	}
	// Output: Blue.
}
