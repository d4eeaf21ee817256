// Command ggufgen writes a tiny llama model with random weights and the
// tokenizer of a given GGUF file.
//
//	go run ./testing/ggufgen/cmd/ggufgen -vocab ggml-vocab-llama-spm.gguf -o tiny.gguf
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ggufgen:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	fs := flag.NewFlagSet("ggufgen", flag.ContinueOnError)
	var o ggufgen.TinyOptions
	vocab := fs.String("vocab", "", "GGUF `FILE` to take the tokenizer from")
	out := fs.String("o", "", "`FILE` to write")
	typ := fs.String("type", "f16", "type of the matrices: f16 or f32")
	fs.IntVar(&o.Layers, "layers", 2, "number of layers")
	fs.IntVar(&o.Width, "width", 64, "width of the hidden state")
	fs.IntVar(&o.Heads, "heads", 4, "attention heads")
	fs.IntVar(&o.KVHeads, "kv-heads", 2, "heads of keys and values")
	fs.IntVar(&o.Feed, "feed", 128, "width of the feed-forward part")
	fs.IntVar(&o.Context, "context", 2048, "trained context in tokens")
	fs.Uint64Var(&o.Seed, "seed", 1, "seed of the weights")
	fs.StringVar(&o.Name, "name", "tiny", "name of the model")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch *typ {
	case "f16":
		o.Type = gguf.F16
	case "f32":
		o.Type = gguf.F32
	default:
		return fmt.Errorf("type %q is neither f16 nor f32", *typ)
	}
	if *vocab == "" || *out == "" {
		return errors.New("both -vocab and -o are needed")
	}
	v, err := gguf.Open(*vocab)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	b, err := ggufgen.Tiny(v, o)
	if err != nil {
		return err
	}
	return b.WriteFile(*out)
}
