package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

const (
	// maxPrompt limits a prompt from stdin, in bytes.
	maxPrompt = 16 << 20
	// maxMediaFile limits an image or audio file, in bytes: in base64, with the
	// rest of the request, the file must not exceed the gateway's body limit.
	maxMediaFile = 74 << 20
)

var (
	// errBrokenPipe reports that the reader of an answer, such as head, has exited.
	errBrokenPipe = errors.New("broken pipe")
	// errInterrupted reports that Ctrl-C canceled an answer.
	errInterrupted = errors.New("interrupted")
)

// generationFlags are the flags of run for prompts and sampling.
type generationFlags struct {
	prompt, system, grammarFile string
	images                      []string
	raw, noThink                bool
	maxTokens, topK             int
	temperature, topP, minP     float32
	repeatPenalty               float32
	seed                        int64
	stop                        []string
	stats                       bool
}

func runCommand() *cobra.Command {
	var (
		m modelFlags
		g generationFlags
	)
	cmd := &cobra.Command{
		Use:   "run MODEL",
		Short: "chat with a model in the terminal, or answer one prompt",
		Long: `Loads MODEL (a GGUF file, a directory with exactly one model, or the reference of a
model that "go-rocm pull" downloaded, such as hf:OWNER/REPO) and starts a chat in
the terminal. With -p, or with a prompt on stdin, it answers that prompt and exits.

In the chat, Ctrl-C stops an answer and Ctrl-D exits; /help lists the commands.

A multimodal model reads images or audio with --mmproj and --image; a pulled model
has its projector. They precede the prompt, or replace <__media__> in it.`,
		Example: `  go-rocm run qwen3-8b-q4_k_m.gguf
  go-rocm run model.gguf -p "The capital of France is" --raw --temperature 0
  go-rocm run gemma-3-4b.gguf --mmproj mmproj-gemma-3-4b.gguf --image cat.png -p "What is this?"
  git diff | go-rocm run model.gguf --system "Write a commit message for this change."`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args[0], &m, &g) },
	}
	m.register(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVarP(&g.prompt, "prompt", "p", "", "answer this prompt and exit")
	fs.StringArrayVar(&g.images, "image", nil, "send this image or audio file with the prompt (repeatable; needs --mmproj)")
	fs.StringVar(&g.system, "system", "", "system message of the conversation")
	fs.BoolVar(&g.raw, "raw", false, "complete the prompt without the chat template")
	fs.BoolVar(&g.noThink, "no-think", false, "ask a reasoning model to answer directly (enable_thinking=false)")
	fs.IntVarP(&g.maxTokens, "max-tokens", "n", 2048, "maximum number of tokens in an answer")
	fs.Float32Var(&g.temperature, "temperature", 0.7, "sampling temperature (0: always the most likely token)")
	fs.IntVar(&g.topK, "top-k", 40, "sample from this many of the most likely tokens (0: all)")
	fs.Float32Var(&g.topP, "top-p", 0.95, "sample from the most likely tokens with this total probability")
	fs.Float32Var(&g.minP, "min-p", 0.05, "exclude tokens less likely than this share of the most likely token")
	fs.Float32Var(&g.repeatPenalty, "repeat-penalty", 1, "penalty for repetition (1: none)")
	fs.Int64Var(&g.seed, "seed", -1, "random seed, for repeatable sampling (-1: random)")
	fs.StringArrayVar(&g.stop, "stop", nil, "end the answer before this text (repeatable)")
	fs.StringVar(&g.grammarFile, "grammar", "", "constrain answers to the GBNF grammar in this file")
	fs.BoolVar(&g.stats, "stats", false, "print token counts and speed to stderr after each answer")
	return cmd
}

func run(cmd *cobra.Command, path string, m *modelFlags, g *generationFlags) error {
	m.addProjector(path)
	prompt, err := g.readPrompt(cmd.InOrStdin(), m)
	if err != nil {
		return err
	}
	base, err := g.request()
	if err != nil {
		return err
	}
	media, err := readMedia(g.images...)
	if err != nil {
		return err
	}
	settings := m.settings(cmd)
	line := newProgressLine(cmd)
	line.attach(&settings)

	stops, _ := onSIGHUP(true)
	// Returning on these signals, instead of dying, lets the model be closed.
	untilEnd, stopSignals := contextWithSignal(cmd.Context(), append(stops, syscall.SIGTERM)...)
	defer stopSignals()
	ctx, stop := contextWithSignal(untilEnd, os.Interrupt)
	defer stop()
	defer withoutSIGPIPE()()
	model, err := (&rocm.Backend{}).Load(ctx, path, settings)
	line.clear()
	if err != nil {
		return cmp.Or(signalCause(ctx), err)
	}
	defer func() { _ = model.Close() }()
	if prompt == "" {
		interrupts := make(chan os.Signal, 1)
		signal.Notify(interrupts, os.Interrupt)
		defer signal.Stop(interrupts)
		stop() // from here on, Ctrl-C stops an answer instead of the program
		return chat(untilEnd, cmd, model, g, base, media, interrupts)
	}
	req := base
	if g.raw {
		req.Prompt = rocm.TextPrompt(prompt, media...)
	} else {
		req.Prompt = rocm.MediaChatPrompt(g.withSystemMessage(newMessage("user", prompt, media...)))
	}
	_, err = answer(ctx, cmd, model, g, req)
	if errors.Is(err, syscall.EPIPE) {
		return errBrokenPipe
	}
	return cmp.Or(signalCause(ctx), err)
}

// readPrompt returns the prompt of -p or of stdin, or "" for a chat, and rejects
// flags that do not fit together.
func (g *generationFlags) readPrompt(stdin io.Reader, m *modelFlags) (string, error) {
	prompt := g.prompt
	if prompt == "" && !isTerminal(stdin) {
		raw, err := readLimited(stdin, maxPrompt)
		if err == nil {
			raw, err = regfile.Text(raw)
		}
		switch {
		case errors.Is(err, errInputTooLarge):
			return "", fmt.Errorf("the prompt is larger than %d MiB", maxPrompt>>20)
		case err != nil:
			return "", fmt.Errorf("read the prompt: %w", err)
		case len(raw) == 0:
			return "", fmt.Errorf("%w: the prompt on stdin is empty; use -p, or run in a terminal", errUsage)
		}
		prompt = string(raw)
	}
	if g.raw && prompt == "" {
		return "", fmt.Errorf("%w: --raw needs a prompt: use -p", errUsage)
	}
	if len(g.images) > 0 && m.projector == "" && len(m.serverArgs) == 0 {
		return "", fmt.Errorf("%w: --image needs --mmproj with the projector made for the model", errUsage)
	}
	return prompt, nil
}

// request returns the fields that the requests of all answers share.
func (g *generationFlags) request() (rocm.Request, error) {
	r := rocm.Request{
		GenerateConfig: inference.GenerateConfig{
			MaxTokens: g.maxTokens, Temperature: g.temperature, TopK: g.topK, TopP: g.topP, RepeatPenalty: g.repeatPenalty,
		},
		MinP: g.minP, Stop: g.stop,
	}
	reuse := true // each message of a chat continues the cached conversation
	r.ReuseCache = &reuse
	if g.seed >= 0 {
		r.Seed = &g.seed
	}
	if g.noThink {
		r.TemplateVars = map[string]any{"enable_thinking": false}
	}
	if g.grammarFile != "" {
		raw, err := regfile.ReadText(g.grammarFile, maxGrammarSize)
		if err != nil {
			return r, fmt.Errorf("grammar: %w", err)
		}
		r.Grammar = string(raw)
	}
	return r, nil
}

// withSystemMessage returns messages with the system message, if any, in front.
func (g *generationFlags) withSystemMessage(messages ...rocm.MediaMessage) []rocm.MediaMessage {
	if g.system == "" {
		return messages
	}
	return append([]rocm.MediaMessage{newMessage("system", g.system)}, messages...)
}

func newMessage(role, text string, media ...rocm.Media) rocm.MediaMessage {
	return rocm.MediaMessage{Message: inference.Message{Role: role, Content: text}, Media: media}
}

// answer streams one answer to stdout and returns its text.
func answer(ctx context.Context, cmd *cobra.Command, model *rocm.Model, g *generationFlags, req rocm.Request) (string, error) {
	var text strings.Builder
	out := cmd.OutOrStdout()
	display := func(s string) string { return s }
	if isTerminal(out) {
		display = sanitizeTerminal
	}
	stream := model.Stream(ctx, req)
	var writeErr error
	for t := range stream.All() {
		text.WriteString(t.Text)
		if _, writeErr = io.WriteString(out, display(t.Text)); writeErr != nil {
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
			return text.String(), errInterrupted
		}
		return text.String(), err
	}
	if g.stats {
		m := stream.Metrics()
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "[%d prompt tokens in %s, %d tokens at %.1f tokens/s]\n",
			m.PromptTokens, m.PrefillDuration.Round(time.Millisecond), m.GeneratedTokens, m.DecodeTokensPerSec)
	}
	return text.String(), nil
}

// readMedia reads the image and audio files of a message.
func readMedia(names ...string) ([]rocm.Media, error) {
	var out []rocm.Media
	for _, name := range names {
		raw, err := readFileLimited(name, maxMediaFile)
		if err != nil {
			return nil, fmt.Errorf("--image: %w", err)
		}
		out = append(out, rocm.Media{Data: raw})
	}
	return out, nil
}

// maxGrammarSize limits the file of --grammar-file, in bytes.
const maxGrammarSize = 1 << 20

func readFileLimited(name string, limit int64) ([]byte, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := readLimited(f, limit)
	if errors.Is(err, errInputTooLarge) {
		return nil, fmt.Errorf("%s is larger than %d MiB; scale it down", name, limit>>20)
	}
	return raw, err
}

// errInputTooLarge reports an input of more than the limited number of bytes.
var errInputTooLarge = errors.New("too large")

// readLimited reads all of r, or fails with errInputTooLarge.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		return nil, errInputTooLarge
	}
	return raw, err
}
