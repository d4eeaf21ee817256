// Command ask loads a model and asks it one question. Like a user's program, it uses
// pkg/inference only, and imports the backend for its registration.
//
//	ask [-max N] [-raw] MODEL.gguf QUESTION
//
// It writes the tokens to standard output while they are generated, and then one JSON
// object with facts about the model and its metrics to standard error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	_ "forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// facts is the JSON object.
type facts struct {
	Yielded int
	Type    string
	Info    inference.ModelInfo
	Metrics inference.GenerateMetrics
	Took    time.Duration // of loading
}

func main() {
	limit := flag.Int("max", 64, "tokens to generate at most")
	raw := flag.Bool("raw", false, "continue the text as it is, without the model's chat template")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := ask(ctx, flag.Args(), *limit, *raw)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ask:", err)
		os.Exit(1)
	}
}

func ask(ctx context.Context, args []string, limit int, raw bool) (err error) {
	if len(args) != 2 {
		return errors.New("usage: ask [-max N] [-raw] MODEL.gguf QUESTION")
	}
	start := time.Now()
	model, err := inference.LoadModel(args[0], inference.WithContextLen(2048))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	took := time.Since(start)

	tokens := model.Chat(ctx, []inference.Message{{Role: "user", Content: args[1]}}, inference.WithMaxTokens(limit))
	if raw {
		tokens = model.Generate(ctx, args[1], inference.WithMaxTokens(limit))
	}
	yielded := 0
	for token := range tokens {
		yielded++
		fmt.Print(token.Text)
	}
	fmt.Println()
	if err := model.Err(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stderr).Encode(facts{
		Yielded: yielded, Type: model.ModelType(), Info: model.Info(), Metrics: model.Metrics(), Took: took,
	})
}
