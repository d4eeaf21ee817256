package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
)

const chatHelp = `/clear       forget the conversation
/image FILE  send an image or audio file with the next message
/retry       answer the last message again
/info        show the model and how it runs
/quit        exit (or Ctrl-D)
A line that ends in \ continues on the next line. Ctrl-C stops an answer.
`

// session is a conversation in the terminal.
type session struct {
	cmd      *cobra.Command
	model    *rocm.Model
	flags    *generationFlags
	base     rocm.Request
	messages []rocm.MediaMessage
	pending  []rocm.Media // to be sent with the next message
}

// chat answers lines of input until the input or ctx ends. An interrupt stops an answer.
func chat(ctx context.Context, cmd *cobra.Command, model *rocm.Model, g *generationFlags, base rocm.Request, media []rocm.Media, interrupts <-chan os.Signal) error {
	s := &session{cmd: cmd, model: model, flags: g, base: base, pending: media}
	lines := make(chan string)
	inputDone := make(chan error, 1)
	go func() { inputDone <- readMessages(cmd.InOrStdin(), cmd.ErrOrStderr(), lines) }()
	s.print("%s, /help for help\n", truncate(model.Info().Architecture))
	for {
		s.print("> ")
		select {
		case <-ctx.Done():
			return signalCause(ctx)
		case <-model.Server().Child.Done():
			return fmt.Errorf("llama-server exited: %w", model.Server().Child.Err())
		case err := <-inputDone:
			s.print("\n")
			return err
		case <-interrupts:
			s.print("\n(press Ctrl-D to exit)\n")
		case line := <-lines:
			quit, err := s.handle(ctx, line, interrupts)
			if err != nil || quit {
				return err
			}
		}
	}
}

// print writes to stderr, sanitized: stdout is for answers.
func (s *session) print(format string, args ...any) {
	_, _ = io.WriteString(s.cmd.ErrOrStderr(), sanitizeTerminal(fmt.Sprintf(format, args...)))
}

// handle processes one line of input, a command or a message.
func (s *session) handle(ctx context.Context, line string, interrupts <-chan os.Signal) (quit bool, err error) {
	switch strings.TrimSpace(line) {
	case "":
		return false, nil
	case "/quit", "/exit", "/bye":
		return true, nil
	case "/help", "/?":
		s.print("%s", chatHelp)
		return false, nil
	case "/clear":
		s.messages, s.pending = nil, nil
		return false, nil
	case "/info":
		s.printInfo()
		return false, nil
	case "/retry":
		if n := len(s.messages); n > 0 && s.messages[n-1].Role == "assistant" {
			s.messages = s.messages[:n-1]
		}
		if len(s.messages) == 0 {
			s.print("no message to answer again\n")
			return false, nil
		}
	default:
		if name, ok := strings.CutPrefix(line, "/image "); ok {
			s.attach(strings.TrimSpace(name))
			return false, nil
		}
		if strings.HasPrefix(line, "/") && !strings.Contains(line, " ") {
			s.print("unknown command %s; see /help\n", line)
			return false, nil
		}
		s.addUserMessage(line)
	}
	return false, s.reply(ctx, interrupts)
}

// addUserMessage appends a message of the user. It replaces an unanswered one and
// inherits its media: chat templates reject two user messages in a row.
func (s *session) addUserMessage(text string) {
	if n := len(s.messages); n > 0 && s.messages[n-1].Role == "user" {
		s.pending = append(s.messages[n-1].Media, s.pending...)
		s.messages = s.messages[:n-1]
	}
	s.messages = append(s.messages, newMessage("user", text, s.pending...))
	s.pending = nil
}

// reply answers the conversation. Ctrl-C stops the answer and keeps what was
// generated. Only the end of llama-server is an error; others are printed, and
// the chat continues.
func (s *session) reply(ctx context.Context, interrupts <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-interrupts:
			cancel()
		case <-ctx.Done():
		}
	}()
	req := s.base
	req.Prompt = rocm.MediaChatPrompt(s.flags.withSystemMessage(s.messages...))
	text, err := answer(ctx, s.cmd, s.model, s.flags, req)
	if text != "" {
		s.messages = append(s.messages, newMessage("assistant", text))
	}
	if err == nil || errors.Is(err, errInterrupted) {
		if text == "" {
			s.print("\n")
		}
		return nil
	}
	select {
	case <-s.model.Server().Child.Done():
		return err
	default:
	}
	for _, invalid := range []error{rocm.ErrMedia, rocm.ErrNoProjector, rocm.ErrInvalidOption} {
		if errors.Is(err, invalid) {
			s.messages = s.messages[:len(s.messages)-1] // otherwise every later request fails too
			break
		}
	}
	s.print("error: %v\n", err)
	return nil
}

// attach reads a file for the next message. It rejects media that the model does
// not read at once.
func (s *session) attach(name string) {
	media, err := readMedia(name)
	if err == nil {
		err = s.model.CheckMedia(s.cmd.Context(), media...)
	}
	if err != nil {
		s.print("error: %v\n", err)
		return
	}
	s.pending = append(s.pending, media...)
	s.print("%s will be sent with the next message\n", printable(name))
}

func (s *session) printInfo() {
	srv := s.model.Server()
	i := s.model.Info()
	s.print("model    %s\n", printable(srv.Path))
	s.print("kind     %s, %d layers, hidden size %d, vocabulary %d, %d bits\n",
		truncate(i.Architecture), i.NumLayers, i.HiddenSize, i.VocabSize, i.QuantBits)
	s.print("slots    %d\n", s.model.Slots())
	if m := s.model.Modalities(); m.Vision || m.Audio {
		s.print("reads    images: %t, audio: %t\n", m.Vision, m.Audio)
	}
	s.print("bundle   %s (%s), pid %d\n", srv.BundleDir, srv.Origin, srv.Child.Pid())
	for _, r := range srv.Plan.Reasons {
		s.print("plan     %s\n", r)
	}
}

// readMessages sends the messages in r to out: one for each line, where a line
// that ends in a backslash continues on the next one.
func readMessages(r io.Reader, prompt io.Writer, out chan<- string) error {
	in := bufio.NewReader(r)
	var message strings.Builder
	for {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if part, continued := strings.CutSuffix(line, "\\"); continued && err == nil {
			message.WriteString(part + "\n")
			_, _ = io.WriteString(prompt, "… ")
			continue
		}
		message.WriteString(line)
		if err == nil || message.Len() > 0 {
			out <- message.String()
			message.Reset()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the terminal: %w", err)
		}
	}
}
