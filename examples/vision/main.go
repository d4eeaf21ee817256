// Command vision asks a model about an image.
//
//	go run ./examples/vision -mmproj MMPROJ.gguf MODEL.gguf cat.png "What is this?"
//
// The model must support images, and the projector (mmproj) must belong to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func main() {
	log.SetFlags(0)
	mmproj := flag.String("mmproj", "", "the model's projector")
	limit := flag.Int("max", 200, "maximum number of tokens of the answer")
	flag.Parse()
	if flag.NArg() != 3 || *mmproj == "" {
		log.Fatal("usage: vision -mmproj MMPROJ.gguf [-max N] MODEL.gguf IMAGE QUESTION")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := ask(ctx, *mmproj, flag.Arg(0), flag.Arg(1), flag.Arg(2), *limit)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func ask(ctx context.Context, mmproj, path, file, question string, limit int) (err error) {
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	settings := rocm.Settings{}
	settings.Context, settings.Projector = 4096, mmproj
	model, err := (&rocm.Backend{}).Load(ctx, path, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	messages := []rocm.MediaMessage{{
		Message: inference.Message{Role: "user", Content: question},
		Media:   []rocm.Media{{Data: image}},
	}}
	for token := range model.ChatMedia(ctx, messages, inference.WithMaxTokens(limit)) {
		fmt.Print(token.Text)
	}
	fmt.Println()
	return model.Err()
}
