// Command hello asks a model one question and prints the answer while it is generated.
//
//	go run ./examples/hello MODEL.gguf "Why is the sky blue?"
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	_ "forge.lthn.ai/core/go-rocm" // registers the backend
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: hello MODEL.gguf QUESTION")
	}
	if err := hello(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func hello(ctx context.Context, path, question string) (err error) {
	model, err := inference.LoadModel(path, inference.WithContextLen(2048))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	messages := []inference.Message{{Role: "user", Content: question}}
	for token := range model.Chat(ctx, messages, inference.WithMaxTokens(100)) {
		fmt.Print(token.Text)
	}
	fmt.Println()
	return model.Err() // a failure ends the loop, too
}
