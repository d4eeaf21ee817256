//go:build linux && amd64

package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

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
