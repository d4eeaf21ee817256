// Command web answers questions over HTTP and streams each answer as plain text
// while the model writes it.
//
//	go run ./examples/web -listen 127.0.0.1:8081 MODEL.gguf
//	curl -N --data 'Why is the sky blue?' http://127.0.0.1:8081/
//
// A client that goes away frees its slot; Ctrl-C lets running answers end.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:8081", "address to listen on")
	slots := flag.Int("slots", 4, "answers under way at the same time; more wait")
	limit := flag.Int("max", 500, "tokens of an answer at most")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: web [-listen HOST:PORT] [-slots N] [-max N] MODEL.gguf")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, *listen, flag.Arg(0), *slots, *limit)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, address, path string, slots, limit int) (err error) {
	s := rocm.Settings{}
	s.Slots = slots
	model, err := (&rocm.Backend{}).Load(ctx, path, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	log.Printf("listening on http://%s", l.Addr())
	srv := &http.Server{Handler: answers{model, limit}, ReadHeaderTimeout: 10 * time.Second}
	down := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		down <- srv.Shutdown(grace)
	})()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-down
}

// answers streams an answer to the question in the body.
type answers struct {
	model *rocm.Model
	limit int
}

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	question, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil || len(question) == 0 {
		http.Error(w, "send a question of at most 64 KiB as the body", http.StatusBadRequest)
		return
	}
	// The request's context ends with its client, and the stream with it. Each
	// stream has its own error, which those beside it do not touch.
	stream := a.model.Stream(r.Context(), rocm.Request{
		Prompt:         rocm.ChatPrompt([]inference.Message{{Role: "user", Content: string(question)}}),
		GenerateConfig: inference.GenerateConfig{MaxTokens: a.limit, Temperature: 0.7},
	})
	defer func() { _ = stream.Close() }()

	token, ok := stream.Next()
	if err := stream.Err(); !ok && err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	flush := http.NewResponseController(w)
	for ; ok; token, ok = stream.Next() {
		if _, err := io.WriteString(w, token.Text); err != nil {
			return // the client is gone
		}
		_ = flush.Flush()
	}
	if stream.Err() != nil {
		panic(http.ErrAbortHandler) // the client sees that the answer is not whole
	}
}
