package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
)

const chatHelp = `/clear    forget the conversation
/image F  show the model the file F with the next message
/retry    answer the last message again
/info     tell about the model and where it runs
/quit     end (as Ctrl-D does)
A line that ends in \ goes on in the next one. Ctrl-C stops an answer.
`

// talk is a conversation in the terminal.
type talk struct {
	cmd   *cobra.Command
	model *rocm.Model
	s     *sampling
	base  rocm.Request
	turns []rocm.MediaMessage
	shown []rocm.Media // goes with the next message
}

// chat reads lines and answers them until the input ends.
func chat(cmd *cobra.Command, model *rocm.Model, s *sampling, base rocm.Request, shown []rocm.Media) error {
	t := &talk{cmd: cmd, model: model, s: s, base: base, shown: shown}
	// What ends the program must not keep llama-server from being stopped.
	ends, _ := onSIGHUP(true)
	quit, stop := contextWithSignal(cmd.Context(), append(ends, syscall.SIGTERM)...)
	defer stop()
	lines := make(chan string)
	failed := make(chan error, 1)
	go func() { failed <- readMessages(cmd.InOrStdin(), cmd.ErrOrStderr(), lines) }()
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	t.tell("%s, /help for help\n", brief(model.Info().Architecture))
	for {
		t.tell("> ")
		select {
		case <-quit.Done():
			return signalOf(quit)
		case <-model.Server().Child.Done():
			return fmt.Errorf("llama-server ended: %w", model.Server().Child.Err())
		case err := <-failed:
			t.tell("\n")
			return err
		case <-interrupts:
			t.tell("\n(Ctrl-D ends)\n")
		case line := <-lines:
			end, err := t.message(quit, line, interrupts)
			if err != nil || end {
				return err
			}
		}
	}
}

func (t *talk) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(t.cmd.ErrOrStderr(), format, args...)
}

// message takes one line of the user's; end asks for the end of the chat.
func (t *talk) message(ctx context.Context, line string, interrupts <-chan os.Signal) (end bool, err error) {
	switch strings.TrimSpace(line) {
	case "":
		return false, nil
	case "/quit", "/exit", "/bye":
		return true, nil
	case "/help", "/?":
		t.tell("%s", chatHelp)
		return false, nil
	case "/clear":
		t.turns, t.shown = nil, nil
		return false, nil
	case "/info":
		t.info()
		return false, nil
	case "/retry":
		if n := len(t.turns); n > 0 && t.turns[n-1].Role == "assistant" {
			t.turns = t.turns[:n-1]
		}
		if len(t.turns) == 0 {
			t.tell("there is nothing to answer again\n")
			return false, nil
		}
	default:
		if name, ok := strings.CutPrefix(line, "/image "); ok {
			t.show(strings.TrimSpace(name))
			return false, nil
		}
		if strings.HasPrefix(line, "/") && !strings.Contains(line, " ") {
			t.tell("%s is not known; /help lists what is\n", line)
			return false, nil
		}
		t.ask(line)
	}
	return false, t.reply(ctx, interrupts)
}

// ask adds a message of the user's. It takes the place of one that was not
// answered, and what was shown with that one: templates refuse two in a row.
func (t *talk) ask(line string) {
	if n := len(t.turns); n > 0 && t.turns[n-1].Role == "user" {
		t.shown = append(t.turns[n-1].Media, t.shown...)
		t.turns = t.turns[:n-1]
	}
	t.turns = append(t.turns, says("user", line, t.shown...))
	t.shown = nil
}

// reply answers the conversation so far; Ctrl-C stops it and keeps what came.
func (t *talk) reply(ctx context.Context, interrupts <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-interrupts:
			cancel()
		case <-ctx.Done():
		}
	}()
	text, err := t.answer(ctx)
	if text != "" {
		t.turns = append(t.turns, says("assistant", text))
	}
	if err == nil || errors.Is(err, errStopped) {
		if text == "" {
			t.tell("\n")
		}
		return nil
	}
	select {
	case <-t.model.Server().Child.Done():
		return err // there is no model any more
	default:
	}
	for _, bad := range []error{rocm.ErrMedia, rocm.ErrNoProjector, rocm.ErrOption} {
		if errors.Is(err, bad) {
			t.turns = t.turns[:len(t.turns)-1] // it would spoil all that follow
			break
		}
	}
	t.tell("error: %v\n", err) // the model lives on: so does the chat
	return nil
}

func (t *talk) answer(ctx context.Context) (string, error) {
	req := t.base
	req.MediaMessages = t.s.conversation(t.turns...)
	return answer(ctx, t.cmd, t.model, t.s, req)
}

// show keeps a file for the next message, and refuses it at once where the model
// reads no such thing.
func (t *talk) show(name string) {
	media, err := readMedia(name)
	if err == nil {
		err = t.model.Readable(t.cmd.Context(), media...)
	}
	if err != nil {
		t.tell("error: %v\n", err)
		return
	}
	t.shown = append(t.shown, media...)
	t.tell("%s goes with your next message\n", name)
}

func (t *talk) info() {
	srv := t.model.Server()
	i := t.model.Info()
	t.tell("model    %s\n", printable(srv.Path))
	t.tell("kind     %s, %d layers, %d wide, vocabulary of %d, %d bits\n", brief(i.Architecture), i.NumLayers, i.HiddenSize, i.VocabSize, i.QuantBits)
	t.tell("slots    %d\n", t.model.Slots())
	if r := t.model.Modalities(); r.Vision || r.Audio {
		t.tell("reads    images: %t, sound: %t\n", r.Vision, r.Audio)
	}
	t.tell("program  %s (%s), pid %d\n", srv.BundleDir, srv.Origin, srv.Child.Pid())
	for _, r := range srv.Plan.Reasons {
		t.tell("plan     %s\n", r)
	}
}

// readMessages sends one message for each line; a line that ends in a backslash
// goes on in the next.
func readMessages(r io.Reader, prompt io.Writer, out chan<- string) error {
	in := bufio.NewReader(r)
	var message strings.Builder
	for {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if more, goesOn := strings.CutSuffix(line, "\\"); goesOn && err == nil {
			message.WriteString(more + "\n")
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
