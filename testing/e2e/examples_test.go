//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
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
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// example builds an example and returns a command that runs it, with a model of random
// weights after its flags.
func example(t *testing.T, name string, flags []string, args ...string) *exec.Cmd {
	t.Helper()
	all := slices.Concat(flags, []string{tiny(t, "llama-spm", 5)}, args)
	cmd := exec.CommandContext(t.Context(), program(t, "forge.lthn.ai/core/go-rocm/examples/"+name), all...)
	cmd.Stderr = os.Stderr
	return cmd
}

// output runs an example and returns its output.
func output(t *testing.T, cmd *exec.Cmd, input string) string {
	t.Helper()
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	if !utf8.Valid(out) {
		t.Errorf("%s wrote invalid UTF-8: %q", cmd, out)
	}
	return string(out)
}

// TestExamples runs every program below examples on the real server. The text of a
// model with random weights has no meaning; the tests check that it arrives, its
// format, and the exit of the programs.
func TestExamples(t *testing.T) {
	tests := map[string]func(*testing.T){
		"hello": exampleHello, "chat": exampleChat, "classify": exampleClassify, "batch": exampleBatch,
		"search": exampleSearch, "tools": exampleTools, "web": exampleWeb, "vision": exampleVision,
	}
	entries, err := os.ReadDir("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && tests[e.Name()] == nil {
			t.Errorf("examples/%s is not tested", e.Name())
		}
	}
	for name, test := range tests {
		t.Run(name, test)
	}
	t.Run("web, left", exampleWebLeft)
}

func exampleHello(t *testing.T) {
	if got := output(t, example(t, "hello", nil, "Why is the sky blue?"), ""); len(got) < 20 {
		t.Errorf("answered %q", got)
	}
	out, err := exec.CommandContext(t.Context(), program(t, "forge.lthn.ai/core/go-rocm/examples/hello"), "absent.gguf", "?").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "absent.gguf") {
		t.Errorf("an absent model: %v, %q", err, out)
	}
}

func exampleChat(t *testing.T) {
	got := output(t, example(t, "chat", []string{"-system", "Be brief.", "-max", "8"}), "Hello\n\nAnd again\n")
	if n := strings.Count(got, "> "); n < 4 || !strings.HasSuffix(got, "> \n") {
		t.Errorf("%d prompts in %q", n, got)
	}
}

func exampleClassify(t *testing.T) {
	const input = "id,text\n1,I love it\n2,\"It broke, twice\"\n3,Fine\n"
	rows, err := csv.NewReader(strings.NewReader(output(t, example(t, "classify", []string{"-labels", "good,bad", "-slots", "2"}), input))).ReadAll()
	if err != nil || len(rows) != 4 || strings.Join(rows[0], " ") != "id text label probability" {
		t.Fatalf("%v, %v", rows, err)
	}
	for _, row := range rows[1:] {
		if row[2] != "good" && row[2] != "bad" || row[3] < "0.500" || row[3] > "1.000" {
			t.Errorf("row %q", row)
		}
	}
	if rows[2][1] != "It broke, twice" {
		t.Errorf("the text became %q", rows[2][1])
	}
	cmd := example(t, "classify", []string{"-labels", "good,good enough"})
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), nil
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "choose other words") {
		t.Errorf("labels that begin alike: %v, %q", err, out)
	}
}

func exampleBatch(t *testing.T) {
	lines := strings.SplitAfter(output(t, example(t, "batch", []string{"-slots", "2", "-max", "4"}), "one\ntwo two\nthree\n"), "\n")
	for i, prompt := range []string{"one", "two two", "three"} {
		var a struct {
			Prompt, Text, Error string
			Tokens              int
		}
		if err := json.Unmarshal([]byte(lines[i]), &a); err != nil || a.Prompt != prompt || a.Tokens == 0 || a.Tokens > 4 || a.Text == "" || a.Error != "" {
			t.Errorf("line %d: %+v, %v", i, a, err)
		}
	}
}

// A line with the same words as the question is the closest one, even with random
// weights.
func exampleSearch(t *testing.T) {
	got := output(t, example(t, "search", []string{"-top", "2"}, "the river is deep"), "a house\nthe river is deep\n\nstones\nbirds and trees\n")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 2 || lines[0] != "1.000  the river is deep" {
		t.Errorf("found %q", lines)
	}
}

func exampleTools(t *testing.T) {
	got := output(t, example(t, "tools", nil, "What is 17 and 25 and 4?"), "")
	written, result, ok := strings.Cut(got, " -> ")
	var call struct{ Tool string }
	if err := json.Unmarshal([]byte(written), &call); err != nil || !ok || strings.TrimSpace(result) == "" || call.Tool != "add" && call.Tool != "shout" {
		t.Errorf("wrote %q: %v", got, err)
	}
}

func exampleVision(t *testing.T) {
	flags := []string{"-max", "8", "-mmproj", projector(t, ggufgen.ProjectorOptions{})}
	file := filepath.Join(t.TempDir(), "picture.png")
	if err := os.WriteFile(file, picture(1).Data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := output(t, example(t, "vision", flags, file, "What is this?"), ""); len(got) < 2 {
		t.Errorf("answered %q", got)
	}
	large := filepath.Join(t.TempDir(), "large.png")
	if err := errors.Join(os.WriteFile(large, picture(1).Data, 0o600), os.Truncate(large, 200<<20)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, says string }{
		"a text":           {"examples_test.go", "is complete"},
		"a very large one": {large, "scale the image down"},
	} {
		cmd := example(t, "vision", flags, c.file, "What is this?")
		cmd.Stderr = nil
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "unreadable media") || !strings.Contains(string(out), c.says) {
			t.Errorf("%s instead of an image: %v, %q", name, err, out)
		}
	}
}

func exampleWeb(t *testing.T) {
	url, stop := startWeb(t, example(t, "web", []string{"-listen", "127.0.0.1:0", "-max", "60", "-slots", "1"}))
	empty := askWeb(t.Context(), t, url, "")
	if _ = empty.Body.Close(); empty.StatusCode != http.StatusBadRequest {
		t.Errorf("no question: status %d", empty.StatusCode)
	}
	resp := askWeb(t.Context(), t, url, "Why?")
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 || !utf8.Valid(body) {
		t.Errorf("status %d, %q, %v", resp.StatusCode, body, err)
	}
	stop()
}

// exampleWebLeft disconnects clients after one byte of an endless answer; each makes the
// only slot free for the next.
func exampleWebLeft(t *testing.T) {
	env, err := fakebundle.Make(t.TempDir(), fakellama.Script{NeverEnds: true, ContextLen: 1 << 30, TokenDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program(t, "forge.lthn.ai/core/go-rocm/examples/web"),
		"-listen", "127.0.0.1:0", "-max", "1000000000", "-slots", "1", env[fakebundle.EnvModel])
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	url, stop := startWeb(t, cmd)
	for range 3 {
		leaving, leave := context.WithTimeout(t.Context(), time.Minute)
		gone := askWeb(leaving, t, url, "Why?")
		if _, err := gone.Body.Read(make([]byte, 1)); err != nil {
			t.Errorf("the first byte: %v", err)
		}
		leave()
		_ = gone.Body.Close()
	}
	stop()
}

// startWeb starts the example and returns its address and a function that stops it.
func startWeb(t *testing.T, cmd *exec.Cmd) (url string, stop func()) {
	t.Helper()
	cmd.Stderr = nil
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(stderr)
	line, err := said.ReadString('\n')
	url = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(line)
	if err != nil || url == "" {
		t.Fatalf("it said %q, %v", line, err)
	}
	return url, func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var rest bytes.Buffer
		if _, err := rest.ReadFrom(said); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ended with %v: %s", err, &rest)
		}
	}
}

func askWeb(ctx context.Context, t *testing.T, url, question string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
