// Command classify reads a CSV file from standard input and writes it to
// standard output with two additional columns: a label for each row, and its
// probability among the given labels.
//
//	go run ./examples/classify -column text -labels positive,negative MODEL.gguf <reviews.csv
//
// Nothing is generated: the model reads each text once, and the program selects the
// label whose first token is the most likely one.
package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func main() {
	log.SetFlags(0)
	column := flag.String("column", "text", "column to classify")
	labels := flag.String("labels", "positive,negative", "labels, which must begin with different tokens")
	slots := flag.Int("slots", 4, "texts processed in parallel")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: classify [-column NAME] [-labels A,B,...] [-slots N] MODEL.gguf <IN.csv >OUT.csv")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	c := classifier{column: *column, labels: strings.Split(*labels, ","), slots: *slots}
	err := c.run(ctx, flag.Arg(0), os.Stdin, os.Stdout)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// cue is the text before the label.
const cue = "Label:"

type classifier struct {
	column string
	labels []string
	slots  int
}

func (c classifier) run(ctx context.Context, path string, in io.Reader, out io.Writer) (err error) {
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("the input has no header")
	}
	at := slices.Index(rows[0], c.column)
	if at < 0 {
		return fmt.Errorf("no column %q among %q; choose one with -column", c.column, rows[0])
	}
	model, err := inference.LoadModel(path, inference.WithParallelSlots(c.slots))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	ids, err := c.tokens(ctx, model)
	if err != nil {
		return err
	}
	prompts := make([]string, 0, len(rows))
	for _, row := range rows[1:] {
		prompts = append(prompts, fmt.Sprintf("Text: %s\nOne of %s.\n%s", row[at], strings.Join(c.labels, ", "), cue))
	}
	results, err := model.Classify(ctx, prompts, inference.WithLogits())
	if err != nil {
		return err
	}
	w := csv.NewWriter(out)
	rows[0] = append(rows[0], "label", "probability")
	for i, r := range results {
		best, p := likeliest(r.Logits, ids)
		rows[i+1] = append(rows[i+1], c.labels[best], strconv.FormatFloat(p, 'f', 3, 64))
	}
	return w.WriteAll(rows)
}

// tokens returns the first token of each label after the cue. It differs from the
// first token of the label alone, because tokenizers include the space before a word.
func (c classifier) tokens(ctx context.Context, model inference.TextModel) ([]int32, error) {
	tokenizer, ok := model.(rocm.Tokenizer)
	if !ok {
		return nil, fmt.Errorf("the backend of this %s model cannot tokenize", model.ModelType())
	}
	before, err := tokenizer.Tokenize(ctx, cue)
	if err != nil {
		return nil, err
	}
	var ids []int32
	for _, label := range c.labels {
		all, err := tokenizer.Tokenize(ctx, cue+" "+label)
		if err != nil {
			return nil, err
		}
		if len(all) <= len(before) || slices.Contains(ids, all[len(before)]) {
			return nil, fmt.Errorf("label %q is empty or begins with the token of another one; choose other words", label)
		}
		ids = append(ids, all[len(before)])
	}
	return ids, nil
}

// likeliest returns the index of the most likely token and its probability among the
// given ones.
func likeliest(logits []float32, ids []int32) (best int, p float64) {
	for i, id := range ids {
		if logits[id] > logits[ids[best]] {
			best = i
		}
	}
	sum := 0.0
	for _, id := range ids {
		sum += math.Exp(float64(logits[id] - logits[ids[best]]))
	}
	return best, 1 / sum
}
