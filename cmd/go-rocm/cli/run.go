package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// sampling are the flags of a generation.
type sampling struct {
	prompt, system, grammarFile string
	images                      []string
	raw, noThink                bool
	maxTokens, topK             int
	temperature, topP, minP     float32
	penalty                     float32
	seed                        int64
	stop                        []string
	stats                       bool
}

func runCommand() *cobra.Command {
	var (
		m modelFlags
		s sampling
	)
	cmd := &cobra.Command{
		Use:   "run MODEL",
		Short: "chat with a model in the terminal, or answer one prompt",
		Long: `Loads MODEL (a GGUF file, or a folder that holds just one) and starts a chat
in the terminal. With -p, or with a prompt piped in, it answers that and ends.

In the chat, Ctrl-C stops an answer, Ctrl-D ends; /help lists what else there is.

A model that was made for images and sound reads them with --mmproj and --image:
they stand before the prompt, or at the places of <__media__> in it.`,
		Example: `  go-rocm run qwen3-8b-q4_k_m.gguf
  go-rocm run model.gguf -p "The capital of France is" --raw --temperature 0
  go-rocm run gemma-3-4b.gguf --mmproj mmproj-gemma-3-4b.gguf --image cat.png -p "What is this?"
  git diff | go-rocm run model.gguf --system "Write a commit message for this change."`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args[0], &m, &s) },
	}
	m.register(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVarP(&s.prompt, "prompt", "p", "", "answer this prompt and end")
	fs.StringArrayVar(&s.images, "image", nil, "show the model this image or sound file with the prompt (repeat it; needs --mmproj)")
	fs.StringVar(&s.system, "system", "", "system message of the conversation")
	fs.BoolVar(&s.raw, "raw", false, "continue the prompt as it is, without the chat template")
	fs.BoolVar(&s.noThink, "no-think", false, "ask a thinking model to answer at once (enable_thinking=false)")
	fs.IntVarP(&s.maxTokens, "max-tokens", "n", 2048, "at most so many tokens an answer")
	fs.Float32Var(&s.temperature, "temperature", 0.7, "0 always takes the most likely token")
	fs.IntVar(&s.topK, "top-k", 40, "sample from so many of the most likely tokens (0: all)")
	fs.Float32Var(&s.topP, "top-p", 0.95, "sample from the tokens that make up this share of the probability")
	fs.Float32Var(&s.minP, "min-p", 0.05, "leave out tokens below this share of the best one's probability")
	fs.Float32Var(&s.penalty, "repeat-penalty", 1, "above 1 makes repetition less likely")
	fs.Int64Var(&s.seed, "seed", -1, "makes sampling repeatable (-1: random)")
	fs.StringArrayVar(&s.stop, "stop", nil, "end the answer before this text (repeat it)")
	fs.StringVar(&s.grammarFile, "grammar", "", "keep to the GBNF grammar in this file")
	fs.BoolVar(&s.stats, "stats", false, "tell tokens and speed on stderr after each answer")
	return cmd
}

func run(cmd *cobra.Command, path string, m *modelFlags, s *sampling) error {
	prompt := s.prompt
	if prompt == "" && fromPipe(cmd.InOrStdin()) {
		text, err := readInput(cmd.InOrStdin())
		if err != nil {
			return err
		}
		if prompt = text; prompt == "" {
			return fmt.Errorf("%w: the prompt that was piped in is empty; give -p, or run it in a terminal", errUsage)
		}
	}
	if s.raw && prompt == "" {
		return fmt.Errorf("%w: --raw needs a prompt: give -p", errUsage)
	}
	if len(s.images) > 0 && m.projector == "" && len(m.extra) == 0 {
		return fmt.Errorf("%w: --image needs --mmproj with the projector that was made for the model", errUsage)
	}
	base, err := s.request()
	if err != nil {
		return err
	}
	shown, err := readMedia(s.images...)
	if err != nil {
		return err
	}
	settings := m.settings(cmd)
	line := newProgressLine(cmd)
	line.attach(&settings)

	ends, _ := onSIGHUP(true)
	ctx, stop := contextWithSignal(cmd.Context(), append(ends, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	defer withoutSIGPIPE()()
	model, err := (&rocm.Backend{}).Load(ctx, path, settings)
	line.clear()
	if err != nil {
		return cmp.Or(signalOf(ctx), err)
	}
	defer func() { _ = model.Close() }()
	if prompt == "" {
		stop() // from here on Ctrl-C stops an answer and not the program
		return chat(cmd, model, s, base, shown)
	}
	req := base
	if s.raw {
		req.Prompt, req.Media = prompt, shown
	} else {
		req.MediaMessages = s.conversation(says("user", prompt, shown...))
	}
	_, err = answer(ctx, cmd, model, s, req)
	if errors.Is(err, syscall.EPIPE) {
		return errEnough
	}
	return cmp.Or(signalOf(ctx), err)
}

// request is the part of a request that all answers share.
func (s *sampling) request() (rocm.Request, error) {
	r := rocm.Request{
		GenerateConfig: inference.GenerateConfig{
			MaxTokens: s.maxTokens, Temperature: s.temperature, TopK: s.topK, TopP: s.topP, RepeatPenalty: s.penalty,
		},
		MinP: s.minP, Stop: s.stop,
	}
	reuse := true // each turn continues the one before
	r.ReuseCache = &reuse
	if s.seed >= 0 {
		r.Seed = &s.seed
	}
	if s.noThink {
		r.TemplateVars = map[string]any{"enable_thinking": false}
	}
	if s.grammarFile != "" {
		raw, err := os.ReadFile(s.grammarFile)
		if err != nil {
			return r, fmt.Errorf("grammar: %w", err)
		}
		r.Grammar = string(raw)
	}
	return r, nil
}

func (s *sampling) conversation(turns ...rocm.MediaMessage) []rocm.MediaMessage {
	if s.system == "" {
		return turns
	}
	return append([]rocm.MediaMessage{says("system", s.system)}, turns...)
}

func says(role, text string, media ...rocm.Media) rocm.MediaMessage {
	return rocm.MediaMessage{Message: inference.Message{Role: role, Content: text}, Media: media}
}

// answer streams one answer to stdout and gives its text.
func answer(ctx context.Context, cmd *cobra.Command, model *rocm.Model, s *sampling, req rocm.Request) (string, error) {
	var text strings.Builder
	out := cmd.OutOrStdout()
	as := func(s string) string { return s }
	if isTerminal(out) {
		as = harmless
	}
	stream := model.Stream(ctx, req)
	var writeErr error
	for t := range stream.All() {
		text.WriteString(t.Text)
		if _, writeErr = io.WriteString(out, as(t.Text)); writeErr != nil {
			break
		}
	}
	if text.Len() > 0 && !strings.HasSuffix(text.String(), "\n") {
		_, _ = fmt.Fprintln(out)
	}
	if writeErr != nil {
		return text.String(), fmt.Errorf("write the answer: %w", writeErr)
	}
	if err := stream.Err(); err != nil {
		if errors.Is(err, context.Canceled) {
			return text.String(), errStopped
		}
		return text.String(), err
	}
	if s.stats {
		g := stream.Metrics()
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "[%d prompt tokens in %s, %d tokens at %.1f a second]\n",
			g.PromptTokens, g.PrefillDuration.Round(time.Millisecond), g.GeneratedTokens, g.DecodeTokensPerSec)
	}
	return text.String(), nil
}

// errEnough says that the reader of an answer has gone, as head does.
var errEnough = errors.New("nobody reads any more")

// errStopped says that Ctrl-C ended an answer.
var errStopped = errors.New("stopped")
