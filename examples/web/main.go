// Command web answers questions over HTTP and streams each answer as plain text
// while the model writes it.
//
//	go run ./examples/web -listen 127.0.0.1:8081 MODEL.gguf
//	curl -N --data 'Why is the sky blue?' http://127.0.0.1:8081/
//
// If a client disconnects, its slot becomes free. On Ctrl-C, running answers may
// finish.
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
	slots := flag.Int("slots", 4, "answers generated in parallel; further requests wait")
	limit := flag.Int("max", 500, "maximum number of tokens of an answer")
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

// answers is a handler that streams an answer to the question in the body.
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
	// The request's context is cancelled when the client disconnects, which ends the
	// stream. Each stream has an error of its own.
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
			return // the client has disconnected
		}
		_ = flush.Flush()
	}
	if stream.Err() != nil {
		panic(http.ErrAbortHandler) // so that the client notices the incomplete answer
	}
}
