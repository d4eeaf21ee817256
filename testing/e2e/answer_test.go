//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// question has one right answer, which SmolLM2-135M gives.
const (
	question = "What is the capital of France? Answer with one word."
	answer   = "Paris"
)

// askOutput is the output of the ask program.
type askOutput struct {
	Text    string
	Yielded int
	Type    string
	Info    inference.ModelInfo
	Metrics inference.GenerateMetrics
}

// ask runs the ask program and reads both of its outputs.
func ask(t *testing.T, args ...string) askOutput {
	t.Helper()
	return runAsk(t, exec.CommandContext(t.Context(), askProgram(t), args...))
}

// runAsk runs an ask program that was prepared as a command.
func runAsk(t *testing.T, cmd *exec.Cmd) askOutput {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ask: %v\n%s", err, &errs)
	}
	var s askOutput
	if err := json.Unmarshal(errs.Bytes(), &s); err != nil {
		t.Fatalf("what ask reported: %v\n%s", err, &errs)
	}
	s.Text = out.String()
	return s
}

func TestRealModelAnswers(t *testing.T) {
	t.Run("SmolLM2", func(t *testing.T) {
		got := ask(t, "-max", "16", realModel(t, models.SmolLM2()), question)
		if !strings.Contains(got.Text, answer) {
			t.Errorf("answered %q", got.Text)
		}
		if got.Type != "llama" || got.Info.NumLayers != 30 || got.Info.VocabSize != 49152 {
			t.Errorf("type %q, info %+v", got.Type, got.Info)
		}
		if got.Metrics.GeneratedTokens == 0 || got.Metrics.PromptTokens == 0 {
			t.Errorf("metrics %+v", got.Metrics)
		}
	})
	t.Run("Gemma3", func(t *testing.T) {
		got := ask(t, "-raw", "-max", "4", realModel(t, models.Gemma3()), "Question: What is the capital of France?\nAnswer:")
		if !strings.Contains(got.Text, answer) {
			t.Errorf("answered %q", got.Text)
		}
		if got.Type != "gemma3" || got.Info.VocabSize != 262144 {
			t.Errorf("type %q, info %+v", got.Type, got.Info)
		}
	})
}

// TestWrongModel checks the errors for a path that is not a model.
func TestWrongModel(t *testing.T) {
	for name, path := range map[string]string{
		"absent":   t.TempDir() + "/absent.gguf",
		"no model": askProgram(t),
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), askProgram(t), path, "hello")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), path) {
				t.Errorf("got %v, %q", err, out)
			}
		})
	}
}
