// Command tools lets a model choose one of two Go functions and its arguments.
//
//	go run ./examples/tools MODEL.gguf "What is 17 and 25 and 4?"
//
// A JSON schema restricts the model to calls that exist, so the program can decode
// every answer. It does not ensure that the model chooses the right one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// schema describes the calls. Its limits prevent an endless answer.
const schema = `{"oneOf": [
	{"type": "object", "properties": {
		"tool": {"const": "add"},
		"numbers": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9999}, "minItems": 1, "maxItems": 8}
	}, "required": ["tool", "numbers"], "additionalProperties": false},
	{"type": "object", "properties": {
		"tool": {"const": "shout"},
		"text": {"type": "string", "minLength": 1, "maxLength": 40}
	}, "required": ["tool", "text"], "additionalProperties": false}
]}`

const instructions = `Call one tool. {"tool": "add", "numbers": [...]} adds numbers. {"tool": "shout", "text": "..."} says a text loudly.`

// call is the model's answer.
type call struct {
	Tool    string `json:"tool"`
	Numbers []int  `json:"numbers"`
	Text    string `json:"text"`
}

func (c call) run() (string, error) {
	switch c.Tool {
	case "add":
		sum := 0
		for _, n := range c.Numbers {
			sum += n
		}
		return fmt.Sprint(sum), nil
	case "shout":
		return strings.ToUpper(c.Text) + "!", nil
	}
	return "", fmt.Errorf("there is no tool %q", c.Tool)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: tools MODEL.gguf REQUEST")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := use(ctx, os.Args[1], os.Args[2])
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func use(ctx context.Context, path, request string) (err error) {
	model, err := (&rocm.Backend{}).Load(ctx, path, rocm.Settings{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	stream := model.Stream(ctx, rocm.Request{
		Prompt:         rocm.ChatPrompt([]inference.Message{{Role: "system", Content: instructions}, {Role: "user", Content: request}}),
		GenerateConfig: inference.GenerateConfig{MaxTokens: 400},
		JSONSchema:     json.RawMessage(schema),
	})
	var text strings.Builder
	for token := range stream.All() {
		text.WriteString(token.Text)
	}
	if err := stream.Err(); err != nil {
		return err
	}
	var c call
	if err := json.Unmarshal([]byte(text.String()), &c); err != nil {
		return fmt.Errorf("the model wrote %q: %w", text.String(), err)
	}
	result, err := c.run()
	if err != nil {
		return err
	}
	fmt.Printf("%s -> %s\n", strings.TrimSpace(text.String()), result)
	return nil
}
