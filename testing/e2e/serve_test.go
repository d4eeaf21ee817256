//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// served is a running `go-rocm serve`.
type served struct {
	url string
	cmd *exec.Cmd
}

var servingAt = regexp.MustCompile(` on (http://127\.0\.0\.1:[0-9]+)`)

// serve starts the server on a free port and waits until it prints its address.
func serve(t *testing.T, args ...string) *served {
	t.Helper()
	return serveTo(t, os.Stderr, args...)
}

// serveLogged is serve with the log in a buffer, which may be read when the server has
// ended.
func serveLogged(t *testing.T, args ...string) (*served, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	return serveTo(t, &log, args...), &log
}

// stop ends the server as a service manager does.
func (s *served) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

func serveTo(t *testing.T, log io.Writer, args ...string) *served {
	t.Helper()
	// The test's context would kill the server before the test can check its exit.
	cmd := exec.Command(cli(t), append([]string{"serve", "--listen", "127.0.0.1:0", "--context", "2048"}, args...)...)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := servingAt.FindStringSubmatch(lines.Text()); m != nil {
			return &served{url: m[1], cmd: cmd}
		}
	}
	t.Fatalf("serve ended before it was ready: %v", cmd.Wait())
	return nil
}

func (s *served) client(key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

func chatParams(model string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:       model,
		Messages:    []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)},
		Temperature: openai.Float(0),
		MaxTokens:   openai.Int(16),
	}
}

// TestServeOpenAI uses the command through OpenAI's own client library.
func TestServeOpenAI(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("first-key\nsecond-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, "--alias", "smol", "--slots", "1", "--api-key-file", keys, realModel(t, models.SmolLM2()))
	client := s.client("second-key")

	t.Run("models", func(t *testing.T) {
		page, err := client.Models.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(page.Data, func(m openai.Model) bool { return m.ID == "smol" }) {
			t.Errorf("models %+v", page.Data)
		}
	})
	t.Run("whole answer", func(t *testing.T) {
		got, err := client.Chat.Completions.New(t.Context(), chatParams("smol"))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Choices) != 1 || !strings.Contains(got.Choices[0].Message.Content, answer) {
			t.Errorf("answered %+v", got.Choices)
		}
		if got.Usage.PromptTokens == 0 || got.Usage.CompletionTokens == 0 {
			t.Errorf("usage %+v", got.Usage)
		}
	})
	t.Run("stream", func(t *testing.T) {
		stream := client.Chat.Completions.NewStreaming(t.Context(), chatParams("smol"))
		var whole openai.ChatCompletionAccumulator
		chunks := 0
		for stream.Next() {
			chunks++
			if !whole.AddChunk(stream.Current()) {
				t.Fatal("a chunk does not fit its answer")
			}
		}
		if err := errors.Join(stream.Err(), stream.Close()); err != nil {
			t.Fatal(err)
		}
		if chunks < 3 || len(whole.Choices) != 1 || !strings.Contains(whole.Choices[0].Message.Content, answer) {
			t.Errorf("%d chunks, answered %+v", chunks, whole.Choices)
		}
	})
	t.Run("stream left in the middle", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		params := chatParams("smol")
		params.MaxTokens = openai.Int(longest)
		stream := client.Chat.Completions.NewStreaming(ctx, params, option.WithJSONSet("ignore_eos", true))
		if !stream.Next() {
			t.Fatal(stream.Err())
		}
		cancel()
		for stream.Next() {
		}
		if err := stream.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("the stream ended with %v", err)
		}
		freed(t, llamaapi.New(s.url, http.DefaultClient, llamaapi.WithAPIKey("second-key")))
		if _, err := client.Chat.Completions.New(t.Context(), chatParams("smol")); err != nil {
			t.Errorf("the next request: %v", err)
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		wrong := s.client("third-key")
		_, err := wrong.Chat.Completions.New(t.Context(), chatParams("smol"))
		var apiError *openai.Error
		if !errors.As(err, &apiError) || apiError.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %v", err)
		}
	})
	t.Run("end", func(t *testing.T) {
		servers := children(t, s.cmd.Process.Pid)
		if len(servers) == 0 {
			t.Error("found no llama-server under serve")
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("serve ended with %v", err)
		}
		for _, pid := range servers {
			if !ended(pid) {
				t.Errorf("process %d lives on", pid)
			}
		}
	})
}

// TestServeRestartsItsChild kills llama-server and checks that a new process answers the
// next request.
func TestServeRestartsItsChild(t *testing.T) {
	s := serve(t, realModel(t, models.SmolLM2()))
	before := children(t, s.cmd.Process.Pid)
	if len(before) != 1 {
		t.Fatalf("servers %v", before)
	}
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "a new server", func() bool {
		now := children(t, s.cmd.Process.Pid)
		return len(now) == 1 && now[0] != before[0]
	})
	client := s.client("none needed")
	got, err := client.Chat.Completions.New(t.Context(), chatParams("any"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 1 || !strings.Contains(got.Choices[0].Message.Content, answer) {
		t.Errorf("answered %+v", got.Choices)
	}
}

// TestRunAnswers checks the shortest way to an answer: one command line.
func TestRunAnswers(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), cli(t), "run", realModel(t, models.SmolLM2()),
		"--temperature", "0", "-n", "16", "--context", "2048", "-p", question).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatal(err)
	}
	if !strings.Contains(string(out), answer) {
		t.Errorf("answered %q", out)
	}
}

// TestServeSurvivesDeepNesting sends JSON of the greatest accepted depth to the places
// where llama-server parses it recursively. The server must survive.
func TestServeSurvivesDeepNesting(t *testing.T) {
	s := serve(t, tiny(t, "llama-spm", 7))
	before := children(t, s.cmd.Process.Pid)
	const levels = 990 // in addition to the enclosing ones
	array := strings.Repeat("[", levels) + strings.Repeat("]", levels)
	schema := strings.Repeat(`{"items":`, levels) + "{}" + strings.Repeat("}", levels)
	chat := `{"max_tokens":1,"messages":[{"role":"user","content":"x"}],`
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"schema":    {"/completion", `{"n_predict":1,"prompt":"x","json_schema":` + schema + "}", http.StatusBadRequest},
		"tools":     {"/v1/chat/completions", chat + `"tools":[{"type":"function","function":{"name":"a","parameters":` + schema + "}}]}", http.StatusBadRequest},
		"variables": {"/v1/chat/completions", chat + `"chat_template_kwargs":{"a":` + array + "}}", http.StatusOK},
		"message":   {"/v1/chat/completions", `{"max_tokens":1,"messages":[{"role":"user","content":"x","z":` + array + "}]}", http.StatusOK},
	} {
		res, err := http.Post(s.url+c.path, "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", name, res.StatusCode, c.status)
		}
	}
	if now := children(t, s.cmd.Process.Pid); !slices.Equal(now, before) {
		t.Errorf("llama-server was %v and is %v", before, now)
	}
}
