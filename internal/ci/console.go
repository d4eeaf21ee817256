package ci

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// console shows the output of steps that run side by side. One step at a time writes to
// out as it runs, in the order in which the steps started; the output of the others is
// held until their turn. So the output of each step is whole.
type console struct {
	mu       sync.Mutex
	out      io.Writer
	midLine  bool       // out does not end with a newline
	sections []*section // in order of start; the first writes to out
}

// section is the output of one step.
type section struct {
	console *console
	held    bytes.Buffer
	closed  bool
}

// open starts a section with a head line. A section that has to wait for its turn is
// announced at once.
func (c *console) open(head string) *section {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &section{console: c}
	if len(c.sections) > 0 {
		if c.midLine {
			_ = c.write([]byte("\n"))
		}
		_ = c.write([]byte(head + " runs beside this; its output follows\n"))
	}
	c.sections = append(c.sections, s)
	_, _ = s.put([]byte(head + "\n"))
	return s
}

// write writes to out; the caller holds the lock.
func (c *console) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	c.midLine = p[len(p)-1] != '\n'
	if _, err := c.out.Write(p); err != nil {
		return fmt.Errorf("write the output of a step: %w", err)
	}
	return nil
}

// put writes or holds p; the caller holds the lock.
func (s *section) put(p []byte) (int, error) {
	if s.console.sections[0] != s {
		return s.held.Write(p)
	}
	return len(p), s.console.write(p)
}

// Write implements io.Writer. Several goroutines of a step may call it.
func (s *section) Write(p []byte) (int, error) {
	s.console.mu.Lock()
	defer s.console.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	return s.put(p)
}

// close ends the section. If it is the first, the next one's output is written, and that
// of those after it that have ended.
func (s *section) close() {
	c := s.console
	c.mu.Lock()
	defer c.mu.Unlock()
	s.closed = true
	for len(c.sections) > 0 && c.sections[0].closed {
		if c.midLine {
			_ = c.write([]byte("\n"))
		}
		c.sections = c.sections[1:]
		if len(c.sections) > 0 {
			next := c.sections[0]
			_ = c.write(next.held.Bytes())
			next.held = bytes.Buffer{}
		}
	}
}
