//go:build linux && amd64

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/request"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// server is a running "go-rocm serve".
type server struct {
	cmd  *exec.Cmd
	url  string
	errs *syncbuffer.Buffer
}

func (w *world) serve(t *testing.T, args ...string) *server {
	t.Helper()
	return w.serveAs(t, append([]string{w.model, "--listen", "127.0.0.1:0"}, args...)...)
}

// serveAs is like serve, but takes all arguments.
func (w *world) serveAs(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{cmd: w.command(append([]string{"serve"}, args...)...), errs: new(syncbuffer.Buffer)}
	s.cmd.Stderr = s.errs
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // like a service, without a terminal
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("serve said:\n%s", s.errs)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = s.cmd.Wait()
		t.Fatalf("serve ended: %s", s.errs)
	}
	s.url = strings.TrimSpace(line[strings.LastIndex(line, " on ")+len(" on "):])
	return s
}

// end sends SIGTERM to the server and waits for its exit.
func (s *server) end(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v: %s", err, s.errs)
	}
}

func fetch(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	got, err := request.Send(t.Context(), method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return got.Status, got.Body
}

func TestServeToOpenAIClient(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "Hello over there"})
	s := w.serve(t, "--alias", "small")
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	params := openai.ChatCompletionNewParams{
		Model: "small", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hi")},
	}
	whole, err := client.Chat.Completions.New(t.Context(), params)
	if err != nil || len(whole.Choices) != 1 || whole.Choices[0].Message.Content != "Hello over there" {
		t.Fatalf("%v, %+v", err, whole)
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	var text strings.Builder
	events := 0
	for stream.Next() {
		events++
		for _, c := range stream.Current().Choices {
			text.WriteString(c.Delta.Content)
		}
	}
	if err := stream.Err(); err != nil || text.String() != "Hello over there" || events < 3 {
		t.Errorf("%d events, %q, %v", events, text.String(), err)
	}
	s.end(t)
}

// /metrics has llama-server's metrics, so it is started with them.
func TestServeStartsLlamaServerWithMetrics(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	s := w.serve(t)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", childOf(t, s.cmd.Process.Pid)))
	if err != nil || !strings.Contains(string(raw)+"\x00", "\x00--metrics\x00") {
		t.Errorf("%q, %v", raw, err)
	}
	s.end(t)
}

// A chat model has no pooling, so that every request for embeddings would fail.
func TestServeRejectsEmbeddingsWithoutPooling(t *testing.T) {
	w := newWorld(t, fakellama.Script{Embeddings: true})
	if _, errs, status := w.output(t, "serve", w.model, "--listen", "127.0.0.1:0", "--embeddings"); status != exitFailure || !strings.Contains(errs, "--pooling") {
		t.Errorf("status %d, %s", status, errs)
	}
	s := w.serve(t, "--embeddings", "--pooling", "mean")
	if status, body := fetch(t, "POST", s.url+"/v1/embeddings", `{"input":"x"}`); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	s.end(t)
}

// The flags reach the gateway; its behaviour is tested in its package.
func TestServeAsksForKeys(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	keys := filepath.Join(w.dir, "keys")
	if err := os.WriteFile(keys, []byte("# ours\nfirst\nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.serve(t, "--api-key-file", keys, "--listen", "0.0.0.0:0")
	url := strings.Replace(strings.Replace(s.url, "[::]", "127.0.0.1", 1), "0.0.0.0", "127.0.0.1", 1)
	for key, want := range map[string]int{"": 401, "third": 401, "first": 200, "second": 200} {
		if got, body := fetch(t, "GET", url+"/v1/models", "", "Authorization", "Bearer "+key); got != want {
			t.Errorf("key %q: %d, want %d: %s", key, got, want, body)
		}
	}
	s.end(t)
}

// A key's budget of tokens is spent across restarts.
func TestServeKeepsUsedTokens(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "one two three"})
	key, digest := gateway.NewKey()
	config := writeConfig(t, fmt.Sprintf("model = %q\nlisten = \"127.0.0.1:0\"\nusage-file = %q\n[keys.alice]\nsha256 = %q\ntokens-per-day = 1\n",
		w.model, filepath.Join(w.dir, "used.json"), digest))
	ask := func(s *server) (int, string) {
		return fetch(t, "POST", s.url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]}`, "Authorization", "Bearer "+key)
	}
	s := w.serveAs(t, "--config", config)
	if status, body := ask(s); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	s.end(t)
	s = w.serveAs(t, "--config", config)
	if status, body := ask(s); status != 429 || !strings.Contains(body, "1 tokens per day") {
		t.Errorf("after a restart: %d %s", status, body)
	}
	s.end(t)
}

// SIGHUP reads the keys with limits again. A file with a mistake changes nothing.
func TestServeReloadsKeysWithLimits(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	first, firstSum := gateway.NewKey()
	second, secondSum := gateway.NewKey()
	head := fmt.Sprintf("model = %q\nlisten = \"127.0.0.1:0\"\n", w.model)
	config := writeConfig(t, head+"[keys.first]\nsha256 = \""+firstSum+"\"\n")
	s := w.serveAs(t, "--config", config)
	reload := func(text string, says string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, says, func() bool { return strings.Contains(s.errs.String(), says) })
	}
	check := func(key string, want int) {
		t.Helper()
		if got, body := fetch(t, "GET", s.url+"/v1/models", "", "Authorization", "Bearer "+key); got != want {
			t.Errorf("%d %s, want %d", got, body, want)
		}
	}
	check(first, 200)
	check(second, 401)
	reload("[keys.second]\nsha256 = 5\n", "not reloaded")
	check(first, 200)
	reload("[keys.second]\nsha256 = \""+secondSum+"\"\n", "certificate reloaded")
	check(first, 401)
	check(second, 200)
	s.end(t)
}

// llama-server is killed while a request waits; the next process answers the request.
func TestServeSurvivesKilledChild(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "still here", PromptDelay: 2 * time.Second})
	s := w.serve(t)
	child := childOf(t, s.cmd.Process.Pid)
	answered := make(chan string, 1)
	go func() {
		_, body := fetch(t, "POST", s.url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]}`)
		answered <- body
	}()
	poll.Until(t, "a busy slot", func() bool { return slotBusy(t, s.url) })
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if body := <-answered; !strings.Contains(body, "still here") {
		t.Errorf("answered %s", body)
	}
	if next := childOf(t, s.cmd.Process.Pid); next == child {
		t.Error("the child was not replaced")
	}
	s.end(t)
}

// A request that crashes llama-server every time does not stop the service.
func TestServeSurvivesCrashingRequest(t *testing.T) {
	w := newWorld(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}}})
	s := w.serve(t)
	res, err := http.Post(s.url+"/completion", "application/json", strings.NewReader(`{"prompt":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusBadGateway || !strings.Contains(string(raw), "crashed while handling this request") || res.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %v %s, %v", res.StatusCode, res.Header, raw, err)
	}
	if status, got := fetch(t, http.MethodGet, s.url+"/v1/models", ""); status != 200 { // waits for the third process
		t.Errorf("afterwards: %d %s", status, got)
	}
	s.end(t)
}

func slotBusy(t *testing.T, url string) bool {
	t.Helper()
	_, body := fetch(t, "GET", url+"/slots", "")
	return strings.Contains(strings.ReplaceAll(body, " ", ""), `"is_processing":true`)
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(raw)); len(fields) > 0 {
			child, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			return child
		}
	}
	t.Fatal("serve has no child")
	return 0
}

// If the model cannot be loaded, serve exits with the reason.
func TestServeReportsLoadFailure(t *testing.T) {
	w := newWorld(t, fakellama.Script{Process: fakellama.Process{ExitEarly: true, ExitCode: 1, Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'"}})
	_, errs, status := w.output(t, "serve", w.model, "--listen", "127.0.0.1:0")
	if status != exitFailure || !strings.Contains(errs, "invalid magic") {
		t.Errorf("status %d: %s", status, errs)
	}
}

func TestServeOnUnixSocket(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "by socket"})
	path := filepath.Join(w.dir, "front.sock")
	s := w.serve(t, "--listen", "unix:"+path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v", info, err)
	}
	w.askBySocket(t, path)

	// The socket of a running server is not replaced.
	if _, errs, status := w.output(t, "serve", w.model, "--listen", "unix:"+path); status != exitFailure || !strings.Contains(errs, "another program is listening there") {
		t.Errorf("a second one: status %d, %s", status, errs)
	}
	w.askBySocket(t, path)

	// The socket of a killed server is replaced.
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is nothing to be taken over: %v", err)
	}
	s = w.serve(t, "--listen", "unix:"+path)
	w.askBySocket(t, path)
	s.end(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}

	// Another file in its place is not removed.
	file := w.file(t, "front.sock", []byte("precious"))
	if _, errs, status := w.output(t, "serve", w.model, "--listen", "unix:"+file); status != exitFailure || !strings.Contains(errs, "is a regular file and no socket") {
		t.Errorf("over a file: status %d, %s", status, errs)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "precious" {
		t.Errorf("the file: %q, %v", raw, err)
	}
}

func (w *world) askBySocket(t *testing.T, path string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://any.name/completion", strings.NewReader(`{"prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || !strings.Contains(string(raw), "by socket") {
		t.Errorf("%s, %v", raw, err)
	}
}
