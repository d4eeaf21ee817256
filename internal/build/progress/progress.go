// Package progress displays the progress of a build: a bar on a terminal, a line every
// half minute elsewhere. It writes the whole output of each step to a log file.
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

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// quietInterval is how often a line is printed where there is no terminal.
const quietInterval = 30 * time.Second

// Display displays the progress of steps. Several steps may run at the same time: on a
// terminal, the first has the bar and the others have lines, as all have elsewhere.
type Display struct {
	out    io.Writer
	dir    string
	isTerm bool

	mu     sync.Mutex // also guards the meters
	barred *meter     // the step with the bar; nil if none has it
}

// New returns a Display that writes to out and creates log files in dir.
func New(out io.Writer, dir string) *Display {
	f, ok := out.(*os.File)
	return &Display{out: out, dir: dir, isTerm: ok && term.IsTerminal(int(f.Fd()))}
}

// Open starts a step and returns a writer for the step's output. A line that begins
// with "[done/total] " updates the progress.
func (d *Display) Open(step string) (io.WriteCloser, error) {
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the log directory: %w", err)
	}
	name := filepath.Join(d.dir, step+".log")
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", step, err)
	}
	_, err = fmt.Fprintf(d.out, "%s: log in %s\n", step, name)
	return &counter{meter: d.meter(step, false), log: f}, err
}

// Reader returns a reader that displays how much of r has been read; total is in bytes,
// -1 if it is unknown.
func (d *Display) Reader(step string, total int64, r io.Reader) io.ReadCloser {
	m := d.meter(step, true)
	m.total = total
	return &reader{meter: m, r: r, total: total}
}

// meter displays the progress of one step.
type meter struct {
	display     *Display
	step        string
	bytes       bool
	start       time.Time
	done, total int64
	shown       time.Time
	bar         *progressbar.ProgressBar
}

func (d *Display) meter(step string, isBytes bool) *meter {
	return &meter{display: d, step: step, bytes: isBytes, start: time.Now(), shown: time.Now()}
}

// set updates the progress. It ignores errors of the display.
func (m *meter) set(done, total int64) {
	m.display.mu.Lock()
	defer m.display.mu.Unlock()
	m.done, m.total = done, total
	if m.display.isTerm && m.display.barred == nil {
		m.display.barred = m
	}
	if m.display.barred != m {
		if time.Since(m.shown) >= quietInterval {
			m.line()
		}
		return
	}
	if m.bar == nil {
		options := []progressbar.Option{
			progressbar.OptionSetWriter(m.display.out), progressbar.OptionSetDescription(m.step),
			progressbar.OptionSetPredictTime(true), progressbar.OptionShowElapsedTimeOnFinish(),
			progressbar.OptionSetWidth(30), progressbar.OptionThrottle(200 * time.Millisecond), progressbar.OptionShowCount(),
		}
		if m.bytes {
			options = append(options, progressbar.OptionShowBytes(true))
		}
		m.bar = progressbar.NewOptions64(total, options...)
	}
	m.bar.ChangeMax64(total)
	_ = m.bar.Set64(done)
}

func (m *meter) end() {
	m.display.mu.Lock()
	defer m.display.mu.Unlock()
	if m.display.barred == m {
		m.display.barred = nil
	}
	if m.done == 0 {
		return
	}
	if m.bar != nil {
		_ = m.bar.Exit()
		_, _ = fmt.Fprintln(m.display.out)
		return
	}
	m.line()
}

func (m *meter) line() {
	m.shown = time.Now()
	if b := m.display.barred; b != nil && b.bar != nil {
		_ = b.bar.Clear() // the bar is drawn again, below the line
	}
	_, _ = fmt.Fprintln(m.display.out, m.status(time.Since(m.start)))
}

// status returns the progress, the elapsed time and an estimate of the remaining time.
func (m *meter) status(elapsed time.Duration) string {
	count := func(n int64) string {
		if m.bytes {
			return fmt.Sprintf("%.1f MB", float64(n)/1e6)
		}
		return strconv.FormatInt(n, 10)
	}
	s := m.step + ": " + count(m.done)
	if m.total > 0 {
		s += " of " + count(m.total)
	}
	s += ", " + elapsed.Round(time.Second).String()
	if m.done > 0 && m.done < m.total {
		left := time.Duration(float64(elapsed) / float64(m.done) * float64(m.total-m.done))
		s += ", about " + left.Round(time.Second).String() + " left"
	}
	return s
}

// counter is the writer for a step's output.
type counter struct {
	mu    sync.Mutex
	meter *meter
	log   *os.File
	part  []byte // an incomplete line
}

// counted matches the lines of ninja with our NINJA_STATUS.
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
			done, errDone := strconv.ParseInt(string(m[1]), 10, 64)
			total, errTotal := strconv.ParseInt(string(m[2]), 10, 64)
			if errDone == nil && errTotal == nil {
				c.meter.set(done, total)
			}
		}
		c.part = append(c.part[:0], rest...)
	}
}

// Close finishes the step.
func (c *counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meter.end()
	return errors.Join(c.log.Sync(), c.log.Close())
}

type reader struct {
	meter       *meter
	r           io.Reader
	read, total int64
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.read += int64(n)
	r.meter.set(r.read, r.total)
	return n, err
}

// Close finishes the display. It does not close the underlying reader.
func (r *reader) Close() error {
	r.meter.end()
	return nil
}
