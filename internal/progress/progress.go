// Package progress shows a person how far a build is. It reads the output of a
// step, keeps it whole in a log file, and prints a counted status: on a
// terminal one line that changes, elsewhere a line now and then.
package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"
)

// quietInterval is how often a line is printed where there is no terminal.
const quietInterval = 30 * time.Second

// Display opens steps.
type Display struct {
	out    *os.File
	dir    string
	isTerm bool
}

// New shows progress on out and keeps logs in dir.
func New(out *os.File, dir string) *Display {
	return &Display{out: out, dir: dir, isTerm: term.IsTerminal(int(out.Fd()))} //nolint:gosec // a descriptor fits
}

// Open starts a step. What is written to it is its output.
func (d *Display) Open(step string) (io.WriteCloser, error) {
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	name := filepath.Join(d.dir, step+".log")
	f, err := os.Create(name) //nolint:gosec // our own folder
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", step, err)
	}
	s := &counter{display: d, step: step, log: f, start: time.Now()}
	_, err = fmt.Fprintf(d.out, "%s: log in %s\n", step, name)
	return s, err
}

type counter struct {
	display     *Display
	step        string
	log         *os.File
	start       time.Time
	mu          sync.Mutex
	part        []byte
	done, total int
	shown       time.Time
}

// counted is how ninja counts, by our NINJA_STATUS.
var counted = regexp.MustCompile(`^\[(\d+)/(\d+)\] `)

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.log.Write(p); err != nil {
		return 0, err
	}
	c.part = append(c.part, p...)
	for {
		line, rest, ok := bytes.Cut(c.part, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if m := counted.FindSubmatch(line); m != nil {
			c.done, _ = strconv.Atoi(string(m[1]))
			c.total, _ = strconv.Atoi(string(m[2]))
			c.show(false)
		}
		c.part = append(c.part[:0], rest...)
	}
}

// show prints the status when it is due.
func (c *counter) show(last bool) {
	every := quietInterval
	if c.display.isTerm {
		every = 200 * time.Millisecond
	}
	if !last && time.Since(c.shown) < every {
		return
	}
	c.shown = time.Now()
	line := Status(c.step, c.done, c.total, time.Since(c.start))
	if c.display.isTerm {
		fmt.Fprintf(c.display.out, "\r\x1b[K%s", line) //nolint:errcheck // only a display
		if last {
			fmt.Fprintln(c.display.out) //nolint:errcheck // only a display
		}
		return
	}
	fmt.Fprintln(c.display.out, line) //nolint:errcheck // only a display
}

// Close ends the step.
func (c *counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total > 0 {
		c.show(true)
	}
	return errors.Join(c.log.Sync(), c.log.Close())
}

// Status says how far a step of counted parts is, how long it took, and how
// long the rest takes if it goes on like this.
func Status(step string, done, total int, elapsed time.Duration) string {
	s := fmt.Sprintf("%s: %d of %d, %s", step, done, total, elapsed.Round(time.Second))
	if done > 0 && done < total {
		left := time.Duration(float64(elapsed) / float64(done) * float64(total-done))
		s += fmt.Sprintf(", about %s left", left.Round(time.Second))
	}
	return s
}
