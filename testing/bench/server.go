package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// words returns the texts of the events, some with characters that JSON must escape.
func words() []string {
	return []string{" the", " town", ",", " of", " \"quoted\"", "\n", " café", " and", " a", "."}
}

// Text returns the whole text of n events.
func Text(n int) string {
	var b bytes.Buffer
	w := words()
	for i := range n {
		b.WriteString(w[i%len(w)])
	}
	return b.String()
}

// escape returns the contents of a JSON string.
func escape(s string) string {
	s = string(bytes.ReplaceAll([]byte(s), []byte(`"`), []byte(`\"`)))
	return string(bytes.ReplaceAll([]byte(s), []byte("\n"), []byte(`\n`)))
}

// completionEvents returns n events of /completion and the final one.
func completionEvents(n int) [][]byte {
	w := words()
	out := make([][]byte, 0, n+1)
	for i := range n {
		out = append(out, fmt.Appendf(nil,
			"data: {\"index\":0,\"content\":\"%s\",\"tokens\":[%d],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":%d,\"tokens_evaluated\":4}\n\n",
			escape(w[i%len(w)]), 260+i%40000, i+1))
	}
	return append(out, fmt.Appendf(nil, "data: {\"index\":0,\"content\":\"\",\"tokens\":[],\"id_slot\":0,\"stop\":true,"+
		"\"tokens_predicted\":%d,\"tokens_evaluated\":4,\"stop_type\":\"limit\",\"timings\":{\"prompt_n\":4,\"predicted_n\":%d}}\n\n", n, n))
}

// chatEvents returns n chunks of /v1/chat/completions, the final one and [DONE].
func chatEvents(n int) [][]byte {
	const tail = `"created":1763859000,"id":"chatcmpl-8FqKOyLWSBzGGk7mWtY1CcbRpxPQeNfd","model":"smollm2-135m","system_fingerprint":"b0-v0.5.0","object":"chat.completion.chunk"`
	w := words()
	out := make([][]byte, 0, n+2)
	for i := range n {
		out = append(out, fmt.Appendf(nil, "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"%s\"}}],%s}\n\n",
			escape(w[i%len(w)]), tail))
	}
	out = append(out, []byte("data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"delta\":{}}],"+tail+"}\n\n"))
	return append(out, []byte("data: [DONE]\n\n"))
}

// response returns a whole HTTP response, each event in a chunk of its own.
func response(events [][]byte) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, e := range events {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(e), e)
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// Server serves responses from memory.
type Server struct {
	// TCP is the base URL on the loopback interface, Socket the path of a unix socket.
	TCP, Socket string

	completion, chat []byte
	listeners        []net.Listener
	dir              string
	wg               sync.WaitGroup
}

// NewServer starts a server of streams of n tokens.
func NewServer(n int) (*Server, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	s := &Server{completion: response(completionEvents(n)), chat: response(chatEvents(n)), dir: dir, Socket: filepath.Join(dir, "s.sock")}
	tcp, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.TCP = "http://" + tcp.Addr().String()
	s.listeners = append(s.listeners, tcp)
	unix, err := new(net.ListenConfig).Listen(context.Background(), "unix", s.Socket)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.listeners = append(s.listeners, unix)
	for _, ln := range s.listeners {
		s.wg.Go(func() { s.accept(ln) })
	}
	return s, nil
}

func (s *Server) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return // closed
		}
		go s.serve(conn)
	}
}

func (s *Server) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }() // the client has read the response
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		b := s.completion
		if req.URL.Path != "/completion" {
			b = s.chat
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

// Close stops the server.
func (s *Server) Close() error {
	var errs []error
	for _, ln := range s.listeners {
		errs = append(errs, ln.Close())
	}
	s.wg.Wait()
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
