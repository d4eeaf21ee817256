// Command search finds the lines of standard input whose meaning is closest to a
// question.
//
//	go run ./examples/search -top 3 MODEL.gguf "how do I stop it?" <manual.txt
//
// Use an embedding model, and the pooling for which it was trained: others run, but
// their results are poor.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm"
)

func main() {
	log.SetFlags(0)
	top := flag.Int("top", 3, "lines to show")
	pooling := flag.String("pooling", "mean", "pooling of the tokens' vectors: mean, cls or last")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: search [-top N] [-pooling KIND] MODEL.gguf QUESTION <LINES")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	// Settings has the options that the contract lacks.
	s := rocm.Settings{}
	s.Embeddings, s.Pooling = true, *pooling
	err := search(ctx, flag.Arg(0), s, flag.Arg(1), *top, os.Stdin, os.Stdout)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

type hit struct {
	line       string
	similarity float64
}

func search(ctx context.Context, path string, s rocm.Settings, question string, top int, in io.Reader, out io.Writer) (err error) {
	texts := []string{question}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) != "" {
			texts = append(texts, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	model, err := (&rocm.Backend{}).Load(ctx, path, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	vectors, err := model.Embed(ctx, texts)
	if err != nil {
		return err
	}
	var hits []hit
	for i, v := range vectors[1:] {
		hits = append(hits, hit{texts[i+1], cosine(vectors[0], v)})
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(b.similarity, a.similarity) })
	for _, h := range hits[:min(top, len(hits))] {
		fmt.Fprintf(out, "%.3f  %s\n", h.similarity, h.line)
	}
	return nil
}

// cosine is 1 for vectors of the same direction, 0 for unrelated ones.
func cosine(a, b []float32) float64 {
	var dot, aa, bb float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	return dot / math.Sqrt(aa*bb)
}
