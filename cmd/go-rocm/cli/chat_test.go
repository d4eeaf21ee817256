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

// openPTY opens both ends of a pseudo-terminal.
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

// terminal is a program that runs in a pseudo-terminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	screen chan string
	unread string
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

// expect waits until the program prints a text, and returns the output between the
// last expected text and this one.
func (term *terminal) expect(what string) (before string) {
	term.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		if before, after, found := strings.Cut(term.unread, what); found {
			term.unread = after
			return before
		}
		select {
		case text, ok := <-term.screen:
			if !ok {
				term.t.Fatalf("the program exited before it printed %q:\n%s", what, term.unread)
			}
			term.unread += text
		case <-limit:
			term.t.Fatalf("the program did not print %q:\n%s", what, term.unread)
		}
	}
}

func (term *terminal) send(keys string) {
	term.t.Helper()
	if _, err := io.WriteString(term.master, keys); err != nil {
		term.t.Fatal(err)
	}
}

// exit presses Ctrl-D and waits for the end of the program.
func (term *terminal) exit() {
	term.t.Helper()
	term.send("\x04")
	go func() {
		for range term.screen {
		}
	}()
	if err := term.cmd.Wait(); err != nil {
		term.t.Errorf("the chat ended with %v", err)
	}
}

// The next message replaces one that was not answered, since many templates reject
// two user messages in a row, and inherits its images.
func TestChatReplacesUnansweredMessage(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer", Alternate: true, Faults: []fakellama.Fault{
		{Kind: fakellama.KindFlood, Request: 1, Bytes: 1},
		{Kind: fakellama.KindNoAnswer, Request: 1},
		{Kind: fakellama.KindStatus, Request: 3, Status: 500, Type: "server_error", Message: "a bad moment"},
	}})
	red := w.file(t, "red.png", imagegen.PNG(16, 1))
	term := w.terminal(t, "run", w.model, "--mmproj", w.projector(t), "--stats", "--verbose")
	term.expect("for help")
	term.send("/image " + red + "\r")
	term.expect("with the next message")
	term.send("Hello\r")
	term.expect("flood") // the model received the message, and never answers
	term.send("\x03")
	term.expect("> ")
	term.send("Hello again\r")
	term.expect("an answer\r\n[")
	if tokens, err := strconv.Atoi(term.expect(" prompt tokens")); err != nil || tokens <= fakellama.ImageTokens {
		t.Errorf("the image was lost: %d prompt tokens, %v", tokens, err)
	}
	term.send("And now\r")
	term.expect("a bad moment")
	term.send("/retry\r")
	term.expect("an answer\r\n[")
	term.exit()
}

// An answer is sanitized for a terminal, and unchanged for a pipe.
func TestAnswerIsSanitizedForTerminal(t *testing.T) {
	const reply = "one\ttwo\r\x1b]52;c;eA==\x07 \u009b31m\nthree é 👩\u200d🚀"
	w := newWorld(t, fakellama.Script{Reply: reply})
	if out, errs, status := w.output(t, "run", w.model, "-p", "x"); status != 0 || out != reply+"\n" {
		t.Errorf("into a pipe: status %d, %q, %s", status, out, errs)
	}
	term := w.terminal(t, "run", w.model)
	term.expect("> ")
	term.send("Hello\r")
	term.expect("Hello\r\n")
	if got, want := term.expect("> "), "one\ttwo\ufffd]52;c;eA==\ufffd \ufffd31m\r\nthree é 👩\u200d🚀\r\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	term.exit()
}

func TestChatCommands(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer", TokenDelay: 5 * time.Millisecond})
	term := w.terminal(t, "run", w.model)
	term.expect("> ")
	term.send("/help\r")
	term.expect("/retry")
	term.send("Hello\r")
	term.expect("an answer\r\n> ")
	term.send("\x03") // Ctrl-C at the prompt does not exit
	term.expect("press Ctrl-D to exit")
	term.send("/retry\r")
	term.expect("an answer\r\n> ")
	term.send("/info\r")
	term.expect("layers")
	term.exit()
}

// A chat continues after an image that cannot be read.
func TestChatContinuesAfterUnreadableImage(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer"})
	red, noise := w.file(t, "red.png", imagegen.PNG(16, 1)), w.file(t, "noise.png", []byte("noise"))
	term := w.terminal(t, "run", w.model, "--mmproj", w.projector(t), "--stats")
	term.expect("> ")
	term.send("/info\r")
	term.expect("images: true")
	term.send("/image " + noise + "x\r")
	term.expect("no such file")
	term.send("/image " + noise + "\r")
	term.expect("with the next message")
	term.send("What is this?\r")
	term.expect("Failed to load image")
	term.send("/image " + red + "\r")
	term.expect("with the next message")
	term.send("And this?\r")
	term.expect("an answer\r\n")
	term.exit()
}
