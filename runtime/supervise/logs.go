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
	// maxLine is how many bytes of a line are kept.
	maxLine = 4 << 10
	// relayDepth is how many lines are queued for slog before lines are dropped.
	relayDepth = 512
	// statePrefix starts a line in which llama-server reports its state to its parent
	// (CMD_CHILD_TO_ROUTER_STATE in tools/server/server-models.cpp).
	statePrefix = "cmd_child_to_router:state:"
)

// logTail keeps the last lines of a child's output, each of limited length. It
// passes them on to slog and never blocks on it.
type logTail struct {
	mu      sync.Mutex
	lines   []string // a ring
	next    int
	secrets []string

	// onLine is called with each line, onState with the text after statePrefix, both
	// from the reading goroutine. They must not block.
	onLine  func(line string)
	onState func(json string)

	relay   chan string
	dropped atomic.Uint64
	relayed sync.WaitGroup
}

func newLogTail(lines int, secrets []string, log *slog.Logger) *logTail {
	t := &logTail{lines: make([]string, 0, lines), secrets: secrets}
	if log.Enabled(logContext, slog.LevelDebug) {
		t.relay = make(chan string, relayDepth)
		t.relayed.Go(func() {
			for line := range t.relay {
				if n := t.dropped.Swap(0); n > 0 {
					log.Debug("llama-server writes faster than its lines are logged", "dropped", n)
				}
				log.Debug("llama-server", "line", line)
			}
		})
	}
	return t
}

// close waits until the queued lines are logged. No line may be added afterwards.
func (t *logTail) close() {
	if t.relay != nil {
		close(t.relay)
		t.relayed.Wait()
	}
}

// last returns the kept lines, oldest first.
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
	if rest, ok := strings.CutPrefix(line, statePrefix); ok && t.onState != nil {
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

// consume reads lines until r ends. It truncates a line at maxLine and discards the
// rest as it reads.
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

// cleanLine removes terminal colours and carriage returns, and makes the line valid
// UTF-8.
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
