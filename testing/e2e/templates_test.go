//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

const templates = "testdata/templates"

// templateCase is a template with the variables for rendering it, and a tokenizer that has
// its special tokens.
type templateCase struct {
	Name, Template, Tokenizer, BOS string
	Vars                           map[string]any
}

// conversation is the input of a template.
type conversation struct {
	Name     string
	Vars     map[string]any
	Messages []inference.Message
}

// TestChatTemplates compares the prompt of a chat with Jinja2's result for the same
// template; see testdata/templates/README.md.
func TestChatTemplates(t *testing.T) {
	var cases []templateCase
	var conversations []conversation
	read(t, "cases.json", &cases)
	read(t, "conversations.json", &conversations)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			model := loadTemplate(t, c)
			for _, conv := range conversations {
				t.Run(conv.Name, func(t *testing.T) { compareTemplate(t, model, c, conv) })
			}
		})
	}
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(templates, name))
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// loadTemplate loads random weights with a template of this project or of the llama.cpp
// source.
func loadTemplate(t *testing.T, c templateCase) *rocm.Model {
	t.Helper()
	path := filepath.Join(templates, c.Template)
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(os.Getenv(models.EnvSource), "models", "templates", c.Template)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	s := rocm.Settings{}
	s.Context, s.ChatTemplateFile = 1024, abs
	model, err := (&rocm.Backend{}).Load(t.Context(), tiny(t, c.Tokenizer, 1), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return model
}

func compareTemplate(t *testing.T, model *rocm.Model, c templateCase, conv conversation) {
	golden, err := os.ReadFile(filepath.Join(templates, "golden", c.Name+"-"+conv.Name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	// The server removes the begin-of-text token from the template's result, because the
	// tokenizer adds it.
	want := strings.TrimPrefix(string(golden), c.BOS)
	vars := maps.Clone(c.Vars)
	if vars == nil {
		vars = map[string]any{}
	}
	maps.Copy(vars, conv.Vars)
	var messages []llamaapi.Message
	for _, m := range conv.Messages {
		messages = append(messages, llamaapi.Message(m))
	}
	got, err := model.API().ApplyTemplate(t.Context(), messages, llamaapi.TemplateOptions{Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("the template gave\n%q\nJinja2 gives\n%q", got, want)
	}
	// A chat uses the same text, token by token.
	stream := model.Stream(t.Context(), rocm.Request{
		Prompt: rocm.ChatPrompt(conv.Messages), TemplateVars: vars, GenerateConfig: inference.GenerateConfig{MaxTokens: 1},
	})
	for range stream.All() {
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	tokens, err := model.CountTokens(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.Metrics().PromptTokens; n != tokens {
		t.Errorf("the chat ran on %d tokens, the text has %d", n, tokens)
	}
}

// TestTemplateThatRaises checks that the error of a template reaches the user.
func TestTemplateThatRaises(t *testing.T) {
	model := loadTemplate(t, templateCase{Template: "google-gemma-2-2b-it.jinja", Tokenizer: "llama-spm"})
	conv := []inference.Message{{Role: "user", Content: "One."}, {Role: "user", Content: "Two."}}
	for token := range model.Chat(t.Context(), conv, inference.WithMaxTokens(1)) {
		t.Errorf("it says %q", token.Text)
	}
	if err := model.Err(); err == nil || !strings.Contains(err.Error(), "must alternate") || !strings.Contains(err.Error(), "tiny-llama-spm") {
		t.Errorf("got %v, want the template's words and the model's name", err)
	}
}

// A template that allocates without end is stopped: one in a file before the model
// is loaded, one of the model while it is. CI has each template in one of the places.
func TestTemplateThatLoops(t *testing.T) {
	for name, tt := range map[string]struct{ template, usual string }{
		"range":    {"{% for i in range(1000000000) %}{{ i }}{% endfor %}", "file"},
		"doubling": {"{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", "model"},
	} {
		template := tt.template
		path := filepath.Join(t.TempDir(), "template.jinja")
		if err := os.WriteFile(path, []byte(template), 0o600); err != nil {
			t.Fatal(err)
		}
		hostile, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Template: template})
		if err != nil {
			t.Fatal(err)
		}
		inFile := rocm.Settings{ChatTemplateFile: path}
		for place, c := range map[string]struct {
			model    string
			settings rocm.Settings
			invalid  bool
		}{"file": {tiny(t, "llama-spm", 1), inFile, true}, "model": {hostile, rocm.Settings{}, false}} {
			if place != cases.Of(tt.usual, tt.usual, place) {
				continue
			}
			model, err := (&rocm.Backend{}).Load(t.Context(), c.model, c.settings)
			if !errors.Is(err, supervise.ErrMemoryLimit) || errors.Is(err, rocm.ErrInvalidOption) != c.invalid || !strings.Contains(err.Error(), "--chat-template-file") {
				t.Errorf("%s in the %s: %v; want ErrMemoryLimit and the remedy", name, place, err)
			}
			if model != nil {
				_ = model.Close()
			}
		}
	}
}

// A template that loops or grows without end for the messages of one request ends that
// request and the process. The next process answers the others.
func TestTemplateThatLoopsForARequest(t *testing.T) {
	const gib = 1 << 20 // in the unit of /proc/meminfo
	for name, tt := range map[string]struct {
		loop string
		want error
		full bool // the host's memory is
	}{
		"growing": {"{% for i in range(1000000000) %}{{ i }}{% endfor %}", supervise.ErrHostMemory, true},
		"looping": {"{% for i in range(1000000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", supervise.ErrStalled, false},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{
				Seed: 1, Template: "{% if messages[0].content == 'loop' %}" + tt.loop + "{% endif %}{{ messages[0].content }}",
			})
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			meminfo := func(available int) {
				t.Helper()
				if err := os.MkdirAll(filepath.Join(root, "proc"), 0o700); err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprintf("MemTotal: %d kB\nMemAvailable: %d kB\n", 16*gib, available)
				if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			meminfo(12 * gib)
			s := rocm.Settings{SysRoot: root}
			s.Context, s.Layers = 1024, plan.CPUOnly
			s.Timeouts.Stall = 3 * time.Second
			s.Restart.MinBackoff = time.Millisecond
			model, err := (&rocm.Backend{}).Load(t.Context(), path, s)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := model.Close(); err != nil {
					t.Error(err)
				}
			}()
			if tt.full {
				meminfo(gib / 4)
			}
			chat := func(content string) error {
				for range model.Chat(t.Context(), []inference.Message{{Role: "user", Content: content}}, inference.WithMaxTokens(1)) {
				}
				return model.Err()
			}
			start := time.Now()
			if err := chat("loop"); !errors.Is(err, tt.want) || !errors.Is(err, supervise.ErrCrashed) || !strings.Contains(err.Error(), "--chat-template-file") {
				t.Errorf("got %v, want %v and the remedy", err, tt.want)
			}
			t.Logf("ended after %s", time.Since(start).Round(10*time.Millisecond))
			if err := chat("Hello"); err != nil {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}
