// Command chat is a conversation with a model in the terminal. Each request contains
// all earlier messages. Ctrl-C stops an answer, Ctrl-D exits.
//
//	go run ./examples/chat [-system TEXT] [-max N] MODEL.gguf
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"

	_ "forge.lthn.ai/core/go-rocm" // registers the backend
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func main() {
	log.SetFlags(0)
	system := flag.String("system", "", "system prompt")
	limit := flag.Int("max", 500, "maximum number of tokens of an answer")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: chat [-system TEXT] [-max N] MODEL.gguf")
	}
	if err := run(flag.Arg(0), *system, *limit, os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(path, system string, limit int, in io.Reader, out io.Writer) (err error) {
	model, err := inference.LoadModel(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	var messages []inference.Message
	if system != "" {
		messages = append(messages, inference.Message{Role: "system", Content: system})
	}
	lines := bufio.NewScanner(in)
	for {
		fmt.Fprint(out, "> ")
		if !lines.Scan() {
			fmt.Fprintln(out)
			return lines.Err()
		}
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		messages = append(messages, inference.Message{Role: "user", Content: lines.Text()})
		said, err := answer(model, messages, limit, out)
		if err != nil {
			return err
		}
		messages = append(messages, inference.Message{Role: "assistant", Content: said})
	}
}

// answer prints the model's answer and returns it, or its beginning if it was
// stopped.
func answer(model inference.TextModel, messages []inference.Message, limit int, out io.Writer) (string, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var said strings.Builder
	for token := range model.Chat(ctx, messages, inference.WithMaxTokens(limit), inference.WithTemperature(0.7)) {
		fmt.Fprint(out, token.Text)
		said.WriteString(token.Text)
	}
	fmt.Fprintln(out)
	if err := model.Err(); err != nil && ctx.Err() == nil {
		return "", err
	}
	return said.String(), nil
}
