package supervise

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// maxLine is how much of one line is kept.
	maxLine = 4 << 10
	// relayDepth is how many lines wait for slog before lines are given up.
	relayDepth = 512
	// stateLine starts a line by which llama-server tells the process that
	// started it how far it is (CMD_CHILD_TO_ROUTER_STATE in
	// tools/server/server-models.cpp).
	stateLine = "cmd_child_to_router:state:"
)

// logTail keeps the last lines of a child's output, each bounded, and hands
// them on to slog without ever waiting for it.
type logTail struct {
	mu      sync.Mutex
	lines   []string // a ring
	next    int
	secrets []string

	// onLine is called with each line, from the reading goroutine; onState for
	// what follows stateLine. Both must not block.
	onLine  func(line string)
	onState func(json string)

	relay   chan string
	dropped atomic.Uint64
	relayed sync.WaitGroup
}

func newLogTail(lines int, secrets []string, log *slog.Logger) *logTail {
	t := &logTail{lines: make([]string, 0, lines), secrets: secrets}
	if log.Enabled(noContext, slog.LevelDebug) {
		t.relay = make(chan string, relayDepth)
		t.relayed.Go(func() {
			for line := range t.relay {
				if n := t.dropped.Swap(0); n > 0 {
					log.Debug("llama-server wrote faster than its lines are logged", "dropped", n)
				}
				log.Debug("llama-server", "line", line)
			}
		})
	}
	return t
}

// close ends the relay; nothing may be added after it.
func (t *logTail) close() {
	if t.relay != nil {
		close(t.relay)
		t.relayed.Wait()
	}
}

// last gives the kept lines, oldest first.
func (t *logTail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]string, 0, len(t.lines))
	if len(t.lines) == cap(t.lines) {
		out = append(out, t.lines[t.next:]...)
		return append(out, t.lines[:t.next]...)
	}
	return append(out, t.lines...)
}

func (t *logTail) add(raw []byte, cut bool) {
	line := cleanLine(raw)
	if line == "" {
		return
	}
	if rest, ok := strings.CutPrefix(line, stateLine); ok && t.onState != nil {
		t.onState(rest)
		return
	}
	for _, s := range t.secrets {
		line = strings.ReplaceAll(line, s, "[key]")
	}
	if cut {
		line += " [cut]"
	}
	t.mu.Lock()
	if len(t.lines) < cap(t.lines) {
		t.lines = append(t.lines, line)
	} else {
		t.lines[t.next] = line
		t.next = (t.next + 1) % len(t.lines)
	}
	t.mu.Unlock()
	if t.onLine != nil {
		t.onLine(line)
	}
	if t.relay != nil {
		select {
		case t.relay <- line:
		default:
			t.dropped.Add(1)
		}
	}
}

// consume reads lines until r ends. A line longer than maxLine is cut, and what
// is over is thrown away as it is read.
func (t *logTail) consume(r io.Reader) {
	buf := make([]byte, 0, 2*maxLine)
	skipping := false
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		start := 0
		for {
			i := bytes.IndexByte(buf[start:], '\n')
			if i < 0 {
				break
			}
			if !skipping {
				line := buf[start : start+i]
				t.add(line[:min(len(line), maxLine)], len(line) > maxLine)
			}
			skipping = false
			start += i + 1
		}
		buf = buf[:copy(buf, buf[start:])]
		if skipping {
			buf = buf[:0]
		} else if len(buf) > maxLine {
			t.add(buf[:maxLine], true)
			buf, skipping = buf[:0], true
		}
		if err != nil {
			if len(buf) > 0 {
				t.add(buf, false)
			}
			return
		}
	}
}

// cleanLine takes terminal colours and carriage returns out and makes the line
// valid UTF-8.
func cleanLine(raw []byte) string {
	line := bytes.TrimRight(raw, "\r\n \t")
	if bytes.IndexByte(line, 0x1b) < 0 {
		return strings.ToValidUTF8(string(line), "\uFFFD")
	}
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		if line[i] != 0x1b {
			b.WriteByte(line[i])
			continue
		}
		if i+1 < len(line) && line[i+1] == '[' { // CSI: up to its final byte
			i += 2
			for i < len(line) && (line[i] < 0x40 || line[i] > 0x7e) {
				i++
			}
		}
	}
	return strings.ToValidUTF8(strings.TrimRight(b.String(), "\r\n \t"), "\uFFFD")
}
