//go:build linux && amd64

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

const roleName = "CLI_TEST_ROLE"

// TestMain lets this binary be go-rocm, and the llama-server of its bundle.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "llama-server" {
		os.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	if os.Getenv(roleName) != "" {
		os.Exit(Main("1.2.3-test", os.Args[1:]))
	}
	// Who calls the tests under nohup has it ignored, and so would what they start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// world is what a run of the program sees.
type world struct {
	env   []string
	model string
	dir   string
}

func newWorld(t *testing.T, s fakellama.Script) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	bundle := filepath.Join(w.dir, "bundle")
	for _, d := range []string{bundle, filepath.Join(w.dir, "run"), filepath.Join(w.dir, "models")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(os.Args[0], filepath.Join(bundle, "llama-server")); err != nil {
		t.Fatal(err)
	}
	script, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), roleName+"=1", script, "GOROCM_BUNDLE="+bundle, "GOROCM_API_KEY=",
		"XDG_RUNTIME_DIR="+filepath.Join(w.dir, "run"), "HOME="+w.dir, "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"), "GOROCM_CACHE=")
	for _, k := range ggufgen.Catalogue() {
		if k.Name != "smollm2-135m" {
			continue
		}
		w.model = filepath.Join(w.dir, "models", k.ID()+".gguf")
		f, err := os.Create(w.model)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Builder().WriteSparse(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = w.env
	return cmd
}

// output runs the program to its end.
func (w *world) output(t *testing.T, stdin string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := w.command(args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func TestRunAnswers(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "Paris, naturally 🗼"})
	for name, args := range map[string][]string{
		"prompt": {"run", w.model, "-p", "Capital of France?", "--stats"},
		"raw":    {"run", w.model, "-p", "The capital of France is", "--raw", "--temperature", "0"},
		"system": {"run", w.model, "-p", "Capital?", "--system", "Be brief.", "--seed", "7"},
	} {
		out, errs, status := w.output(t, "", args...)
		if status != 0 || out != "Paris, naturally 🗼\n" {
			t.Errorf("%s: status %d, %q, %s", name, status, out, errs)
		}
		if name == "prompt" && !strings.Contains(errs, "prompt tokens in") {
			t.Errorf("--stats tells %q", errs)
		}
	}
	if out, errs, status := w.output(t, "piped in", "run", w.model); status != 0 || out != "Paris, naturally 🗼\n" {
		t.Errorf("piped: status %d, %q, %s", status, out, errs)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"unknown flag":    {[]string{"run", w.model, "--no-such"}, exitUsage, "--no-such"},
		"unknown command": {[]string{"fly"}, exitUsage, "fly"},
		"no model":        {[]string{"run"}, exitUsage, "accepts 1 arg"},
		"empty pipe":      {[]string{"run", w.model}, exitUsage, "-p"},
		"missing model":   {[]string{"run", "/no/such.gguf", "-p", "x"}, exitFailure, "no such file"},
		"foreign address": {[]string{"serve", w.model, "--listen", "0.0.0.0:0"}, exitUsage, "--api-key-file"},
		"all interfaces":  {[]string{"serve", w.model, "--listen", ":0"}, exitUsage, "--api-key-file"},
		"no port":         {[]string{"serve", w.model, "--listen", "localhost"}, exitUsage, "host:port"},
		"missing keys":    {[]string{"serve", w.model, "--api-key-file", "/no/such"}, exitFailure, "api keys"},
		"no keys":         {[]string{"serve", w.model, "--api-key-file", w.model}, exitFailure, "visible ASCII"},
		"half of tls":     {[]string{"serve", w.model, "--tls-cert", "x"}, exitUsage, "--tls-key"},
		"two of one kind": {[]string{"cache", "prune", "x"}, exitUsage, `cache prune: unknown command "x"`},
		"two settings":    {[]string{"config", "check", "a", "b"}, exitUsage, "config check: accepts at most 1 arg"},
		"no such check":   {[]string{"config", "chekc"}, exitUsage, "chekc"},
		"flags that bite": {[]string{"cache", "prune", "--days", "1", "--all"}, exitUsage, "days all"},
		"two shells":      {[]string{"completion", "bash", "x"}, exitUsage, "completion bash"},
		"verify nothing":  {[]string{"verify"}, exitUsage, "--embedded"},
		"verify two":      {[]string{"verify", "x", "--installed"}, exitUsage, "--embedded"},
		"verify no file":  {[]string{"verify", "/no/such"}, exitFailure, "no such file"},
		"bad override":    {[]string{"fit", w.model, "--override", "maybe"}, exitFailure, "override"},
	} {
		_, errs, status := w.output(t, "", tt.args...)
		if status != tt.status || !strings.Contains(errs, tt.says) || !strings.HasPrefix(errs, "go-rocm: ") ||
			strings.HasSuffix(errs, "\nsee: go-rocm help\n") != (status == exitUsage) {
			t.Errorf("%s: status %d, want %d that says %q: %s", name, status, tt.status, tt.says, errs)
		}
	}
}

func TestFacts(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	out, _, status := w.output(t, "", "version", "--json")
	var v versionFacts
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 || v.Version != "1.2.3-test" || v.Bundle == nil || v.Platform != "linux/amd64" {
		t.Errorf("version: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "models", w.dir, "--json")
	var models []rocm.Found
	if err := json.Unmarshal([]byte(out), &models); err != nil || status != 0 || len(models) != 1 || !models[0].Loadable || models[0].Architecture != "llama" {
		t.Errorf("models: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "fit", w.model, "--json", "--context", "4096")
	var plan struct {
		Context int      `json:"context"`
		Args    []string `json:"args"`
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil || status != 0 || plan.Context != 4096 || len(plan.Args) == 0 {
		t.Errorf("fit: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "doctor", "--json")
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || status != 0 || len(findings) < 4 {
		t.Errorf("doctor: %d, %v, %s", status, err, out)
	}
	for _, args := range [][]string{{"version"}, {"models", w.dir}, {"fit", w.model}, {"doctor"}, {"gpus"}, {"gpus", "--json"}, {"help"}, {"completion", "bash"}} {
		if out, errs, status := w.output(t, "", args...); status != 0 || out == "" {
			t.Errorf("%v: status %d, %q, %s", args, status, out, errs)
		}
	}
	w.env = append(w.env, "GOROCM_BUNDLE="+w.dir)
	if _, errs, status := w.output(t, "", "doctor"); status != exitFailure || !strings.Contains(errs, "manifest.json") {
		t.Errorf("doctor without a bundle: status %d, %s", status, errs)
	}
}

// server is a running "go-rocm serve".
type server struct {
	cmd  *exec.Cmd
	url  string
	errs *output
}

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (w *world) serve(t *testing.T, args ...string) *server {
	t.Helper()
	return w.serveAs(t, append([]string{w.model, "--listen", "127.0.0.1:0"}, args...)...)
}

// serveAs is serve with all its arguments.
func (w *world) serveAs(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{cmd: w.command(append([]string{"serve"}, args...)...), errs: new(output)}
	s.cmd.Stderr = s.errs
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as a service, without a terminal
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

// end asks it to end and waits.
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
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
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

func TestServeReadsItsSettings(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "from a file"})
	path := writeConfig(t, "model = '"+w.model+"'\nlisten = '127.0.0.1:0'\nalias = 'ours'\n")
	if out, errs, status := w.output(t, "", "config", "check", path); status != 0 || out != path+": nothing is wrong with it\n" {
		t.Errorf("check: status %d, %q, %s", status, out, errs)
	}
	s := w.serveAs(t, "--config", path)
	if _, body := fetch(t, "GET", s.url+"/v1/models", ""); !strings.Contains(body, `"ours"`) {
		t.Errorf("the alias is not in effect: %s", body)
	}
	s.end(t)

	path = writeConfig(t, "modell = 'a'\n")
	for _, args := range [][]string{{"serve", "--config", path}, {"config", "check", path}} {
		if _, errs, status := w.output(t, "", args...); status != exitConfig || !strings.Contains(errs, path+`:1: unknown key "modell"`) {
			t.Errorf("%v: status %d, %s", args, status, errs)
		}
	}
	if _, errs, status := w.output(t, "", "serve"); status != exitUsage || !strings.Contains(errs, "give a model") {
		t.Errorf("serve without a model: status %d, %s", status, errs)
	}
}

func TestServeDoor(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	s := w.serve(t)
	for name, tt := range map[string]struct {
		method, path string
		header       []string
		status       int
	}{
		"health":             {"GET", "/health", nil, 200},
		"models":             {"GET", "/v1/models", nil, 200},
		"slots":              {"GET", "/slots", nil, 200},
		"tools":              {"GET", "/tools", nil, 404},
		"cors proxy":         {"GET", "/cors-proxy", nil, 404},
		"changing props":     {"POST", "/props", nil, 405},
		"changing adapters":  {"POST", "/lora-adapters", nil, 405},
		"page of the web":    {"GET", "/v1/models", []string{"Origin", "http://evil.example"}, 403},
		"local page":         {"GET", "/v1/models", []string{"Origin", "http://localhost:3000"}, 200},
		"rebound name":       {"GET", "/v1/models", []string{"Host", "evil.example"}, 403},
		"foreign key passes": {"GET", "/v1/models", []string{"Authorization", "Bearer whatever"}, 200},
		"below slots":        {"POST", "/slots/0/../../props", nil, 404},
	} {
		if got, body := fetch(t, tt.method, s.url+tt.path, "", tt.header...); got != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, got, tt.status, body)
		}
	}
	s.end(t)

	keys := filepath.Join(w.dir, "keys")
	if err := os.WriteFile(keys, []byte("# ours\nfirst\nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = w.serve(t, "--api-key-file", keys, "--listen", "0.0.0.0:0")
	url := strings.Replace(strings.Replace(s.url, "[::]", "127.0.0.1", 1), "0.0.0.0", "127.0.0.1", 1)
	for name, tt := range map[string]struct {
		header []string
		status int
	}{
		"none":      {nil, 401},
		"wrong":     {[]string{"Authorization", "Bearer third"}, 401},
		"first":     {[]string{"Authorization", "Bearer first"}, 200},
		"x-api-key": {[]string{"X-Api-Key", "second"}, 200},
		"from web":  {[]string{"Authorization", "Bearer first", "Origin", "http://page.example"}, 200},
	} {
		if got, body := fetch(t, "GET", url+"/v1/models", "", tt.header...); got != tt.status {
			t.Errorf("key %s: %d, want %d: %s", name, got, tt.status, body)
		}
	}
	if got, _ := fetch(t, "GET", url+"/health", ""); got != 200 {
		t.Errorf("health without a key: %d", got)
	}
	s.end(t)
}

// While a request waits, llama-server is killed: the request is answered by the
// next one.
func TestServeSurvivesADeath(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "still here", PromptDelay: 2 * time.Second})
	s := w.serve(t)
	child := childOf(t, s.cmd.Process.Pid)
	answered := make(chan string, 1)
	go func() {
		_, body := fetch(t, "POST", s.url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]}`)
		answered <- body
	}()
	for !slotBusy(t, s.url) {
		time.Sleep(5 * time.Millisecond)
	}
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

// A request of which llama-server dies each time does not end the service.
func TestServeSurvivesADeadlyRequest(t *testing.T) {
	w := newWorld(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1, Signal: int(syscall.SIGSEGV)}}})
	s := w.serve(t)
	res, err := http.Post(s.url+"/completion", "application/json", strings.NewReader(`{"prompt":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusBadGateway || !strings.Contains(string(raw), "died twice") || res.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %v %s, %v", res.StatusCode, res.Header, raw, err)
	}
	if status, got := fetch(t, http.MethodGet, s.url+"/v1/models", ""); status != 200 { // it waits for the third process
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

func TestServeTellsSystemd(t *testing.T) {
	w := newWorld(t, fakellama.Script{LoadTime: 300 * time.Millisecond})
	addr := &net.UnixAddr{Name: filepath.Join(w.dir, "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	w.env = append(w.env, "NOTIFY_SOCKET="+addr.Name, "WATCHDOG_USEC=20000")
	told := make(chan string, 1024)
	go func() {
		defer close(told)
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			told <- string(buf[:n])
		}
	}()
	s := w.serve(t, "--drain", "5m")
	want := []string{"STATUS=starting", "STATUS=loading", "READY=1", "WATCHDOG=1", "WATCHDOG=1"}
	limit := time.After(30 * time.Second)
	for len(want) > 0 {
		select {
		case msg := <-told:
			if strings.HasPrefix(msg, want[0]) {
				want = want[1:]
			}
		case <-limit:
			t.Fatalf("not told: %q", want)
		}
	}
	s.end(t)
	_ = manager.Close()
	stopping := ""
	for msg := range told {
		if strings.HasPrefix(msg, "STOPPING=1") {
			stopping = msg
		}
	}
	_, usec, _ := strings.Cut(stopping, "\nEXTEND_TIMEOUT_USEC=")
	limit5m := (5*time.Minute + supervise.DefaultStopTimeout).Microseconds()
	if extended, err := strconv.ParseInt(usec, 10, 64); err != nil || extended <= limit5m {
		t.Errorf("told %q, want STOPPING=1 and time for the requests that run and for llama-server", stopping)
	}
}

// A model that cannot be loaded ends serve with the reason.
func TestServeFails(t *testing.T) {
	w := newWorld(t, fakellama.Script{Process: fakellama.Process{ExitEarly: true, ExitCode: 1, Log: "gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'"}})
	_, errs, status := w.output(t, "", "serve", w.model, "--listen", "127.0.0.1:0")
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

	// One that answers is not taken away.
	if _, errs, status := w.output(t, "", "serve", w.model, "--listen", "unix:"+path); status != exitFailure || !strings.Contains(errs, "another program answers there") {
		t.Errorf("a second one: status %d, %s", status, errs)
	}
	w.askBySocket(t, path)

	// What one leaves that was killed is.
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

	// Something else in its place stays.
	file := w.file(t, "front.sock", []byte("precious"))
	if _, errs, status := w.output(t, "", "serve", w.model, "--listen", "unix:"+file); status != exitFailure || !strings.Contains(errs, "address already in use") {
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

// openPTY gives both ends of a pseudo-terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// terminal is the program in a pseudo-terminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	screen chan string
	seen   string // and not yet expected
}

func (w *world) terminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	cmd := w.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	term := &terminal{t: t, cmd: cmd, master: master, screen: make(chan string, 1024)}
	go func() {
		defer close(term.screen)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if n > 0 {
				term.screen <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return term
}

// expect waits until the program shows a text behind the one expected before,
// and gives what it shows in between.
func (term *terminal) expect(what string) (before string) {
	term.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		if before, after, found := strings.Cut(term.seen, what); found {
			term.seen = after
			return before
		}
		select {
		case text, ok := <-term.screen:
			if !ok {
				term.t.Fatalf("it ended before it showed %q:\n%s", what, term.seen)
			}
			term.seen += text
		case <-limit:
			term.t.Fatalf("%q was not shown:\n%s", what, term.seen)
		}
	}
}

func (term *terminal) say(keys string) {
	term.t.Helper()
	if _, err := io.WriteString(term.master, keys); err != nil {
		term.t.Fatal(err)
	}
}

// end is Ctrl-D.
func (term *terminal) end() {
	term.t.Helper()
	term.say("\x04")
	go func() {
		for range term.screen {
		}
	}()
	if err := term.cmd.Wait(); err != nil {
		term.t.Errorf("the chat ended with %v", err)
	}
}

// A message that got no answer does not stand beside the next one, which many
// templates refuse; what was shown with it is shown with that one.
func TestChatGoesOnAfterNoAnswer(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer", Alternate: true, Faults: []fakellama.Fault{
		{Kind: fakellama.KindFlood, Request: 1, Bytes: 1},
		{Kind: fakellama.KindNoAnswer, Request: 1},
		{Kind: fakellama.KindStatus, Request: 3, Status: 500, Type: "server_error", Message: "a bad moment"},
	}})
	red := w.file(t, "red.png", imagegen.PNG(16, 1))
	term := w.terminal(t, "run", w.model, "--mmproj", w.projector(t), "--stats", "--verbose")
	term.expect("for help")
	term.say("/image " + red + "\r")
	term.expect("your next message")
	term.say("Hello\r")
	term.expect("flood") // it is with the model, which never answers
	term.say("\x03")
	term.expect("> ")
	term.say("Hello again\r")
	term.expect("an answer\r\n[")
	if tokens, err := strconv.Atoi(term.expect(" prompt tokens")); err != nil || tokens <= fakellama.ImageTokens {
		t.Errorf("the image was forgotten: %d prompt tokens, %v", tokens, err)
	}
	term.say("And now\r")
	term.expect("a bad moment")
	term.say("/retry\r")
	term.expect("an answer\r\n[")
	term.end()
}

// What a model says drives no terminal; a pipe gets it as it is.
func TestAnswerDrivesNoTerminal(t *testing.T) {
	const said = "one\ttwo\r\x1b]52;c;eA==\x07 \u009b31m\nthree é 👩\u200d🚀"
	w := newWorld(t, fakellama.Script{Reply: said})
	if out, errs, status := w.output(t, "", "run", w.model, "-p", "x"); status != 0 || out != said+"\n" {
		t.Errorf("into a pipe: status %d, %q, %s", status, out, errs)
	}
	term := w.terminal(t, "run", w.model)
	term.expect("> ")
	term.say("Hello\r")
	term.expect("Hello\r\n")
	if got, want := term.expect("> "), "one\ttwo\ufffd]52;c;eA==\ufffd \ufffd31m\r\nthree é 👩\u200d🚀\r\n"; got != want {
		t.Errorf("shown: %q, want %q", got, want)
	}
	term.end()
}

func TestChatInTerminal(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer", TokenDelay: 5 * time.Millisecond})
	term := w.terminal(t, "run", w.model)
	term.expect("> ")
	term.say("/help\r")
	term.expect("/retry")
	term.say("Hello\r")
	term.expect("an answer\r\n> ")
	term.say("\x03") // Ctrl-C at the prompt does not end it
	term.expect("Ctrl-D ends")
	term.say("/retry\r")
	term.expect("an answer\r\n> ")
	term.say("/info\r")
	term.expect("layers")
	term.end()
}
