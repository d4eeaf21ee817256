// Command batch continues every line of standard input and writes one JSON
// object for each, in the order of the lines. The prompts share the model's slots:
// when one is complete, the next one starts.
//
//	go run ./examples/batch -slots 8 MODEL.gguf <prompts.txt >answers.jsonl
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"

	_ "forge.lthn.ai/core/go-rocm" // registers the backend
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// answer is one line of the output.
type answer struct {
	Prompt string `json:"prompt"`
	Text   string `json:"text"`
	Tokens int    `json:"tokens"`
	Error  string `json:"error,omitempty"`
}

func main() {
	log.SetFlags(0)
	slots := flag.Int("slots", 4, "prompts processed in parallel")
	limit := flag.Int("max", 100, "maximum number of tokens of an answer")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: batch [-slots N] [-max N] MODEL.gguf <PROMPTS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, flag.Arg(0), *slots, *limit, os.Stdin, os.Stdout)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string, slots, limit int, in io.Reader, out io.Writer) (err error) {
	var prompts []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		prompts = append(prompts, lines.Text())
	}
	if err := lines.Err(); err != nil {
		return err
	}
	model, err := inference.LoadModel(path, inference.WithParallelSlots(slots))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	results, err := model.BatchGenerate(ctx, prompts, inference.WithMaxTokens(limit))
	w := json.NewEncoder(out)
	for i, r := range results {
		a := answer{Prompt: prompts[i], Tokens: len(r.Tokens)}
		var text strings.Builder
		for _, token := range r.Tokens {
			text.WriteString(token.Text)
		}
		a.Text = text.String()
		if r.Err != nil { // concerns this prompt only
			a.Error = r.Err.Error()
		}
		err = errors.Join(err, w.Encode(a))
	}
	m := model.Metrics()
	log.Printf("%d prompts, %d tokens, %.1f tokens a second", len(prompts), m.GeneratedTokens, m.DecodeTokensPerSec)
	return err
}
