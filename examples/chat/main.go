// Command chat talks with a model in the terminal. It remembers what was said;
// Ctrl-C breaks off an answer, Ctrl-D ends the talk.
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
	system := flag.String("system", "", "what the model is told before the talk")
	limit := flag.Int("max", 500, "tokens of an answer at most")
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

	var talk []inference.Message
	if system != "" {
		talk = append(talk, inference.Message{Role: "system", Content: system})
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
		talk = append(talk, inference.Message{Role: "user", Content: lines.Text()})
		said, err := answer(model, talk, limit, out)
		if err != nil {
			return err
		}
		talk = append(talk, inference.Message{Role: "assistant", Content: said})
	}
}

// answer prints the model's turn and returns it, as far as it came.
func answer(model inference.TextModel, talk []inference.Message, limit int, out io.Writer) (string, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var said strings.Builder
	for token := range model.Chat(ctx, talk, inference.WithMaxTokens(limit), inference.WithTemperature(0.7)) {
		fmt.Fprint(out, token.Text)
		said.WriteString(token.Text)
	}
	fmt.Fprintln(out)
	if err := model.Err(); err != nil && ctx.Err() == nil {
		return "", err
	}
	return said.String(), nil
}
